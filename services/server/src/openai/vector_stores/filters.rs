//! Filters: `{type: eq, key, value}` and `{type: and, filters}`.

use llama_stack_core::{Error, Result, attributes};
use llama_stack_proto::v1::{
    Filter,
    filter::{Comparison, Filter as Of, Filters, comparison::Operator},
};
use serde_json::{Value, json};

/// How deep conditions may stand within each other, and how many there may be.
const MAX_DEPTH: usize = 8;
const MAX_CONDITIONS: usize = 256;
const MAX_VALUES: usize = 1_000;

const OPERATORS: [(&str, Operator); 8] = [
    ("eq", Operator::Eq),
    ("ne", Operator::Ne),
    ("gt", Operator::Gt),
    ("gte", Operator::Gte),
    ("lt", Operator::Lt),
    ("lte", Operator::Lte),
    ("in", Operator::In),
    ("nin", Operator::NotIn),
];

/// # Errors
/// `InvalidArgument` with the condition's path.
pub(crate) fn read(field: &str, filter: Option<&Value>) -> Result<Option<Filter>> {
    let mut left = MAX_CONDITIONS;
    filter.filter(|filter| !filter.is_null()).map(|filter| condition(field, filter, 1, &mut left)).transpose()
}

fn condition(field: &str, filter: &Value, depth: usize, left: &mut usize) -> Result<Filter> {
    if depth > MAX_DEPTH {
        return Err(Error::invalid(field, format!("{field}: conditions stand at most {MAX_DEPTH} deep within each other")));
    }
    *left =
        left.checked_sub(1).ok_or_else(|| Error::invalid(field, format!("{field}: a filter has at most {MAX_CONDITIONS} conditions")))?;
    let kind = filter.get("type").and_then(Value::as_str).unwrap_or_default();
    let of = match kind {
        "and" | "or" => {
            let listed = filter.get("filters").and_then(Value::as_array).filter(|listed| !listed.is_empty());
            let listed = listed.ok_or_else(|| {
                let field = format!("{field}.filters");
                Error::invalid(&field, format!("{field} must be a list of at least one filter"))
            })?;
            let read = |(index, inner)| condition(&format!("{field}.filters[{index}]"), inner, depth + 1, left);
            let filters = Filters { filters: listed.iter().enumerate().map(read).collect::<Result<_>>()? };
            if kind == "and" { Of::All(filters) } else { Of::Any(filters) }
        }
        _ => Of::Comparison(comparison(field, filter, kind)?),
    };
    Ok(Filter { filter: Some(of) })
}

fn comparison(field: &str, filter: &Value, kind: &str) -> Result<Comparison> {
    let Some((_, operator)) = OPERATORS.iter().find(|(name, _)| *name == kind) else {
        let field = format!("{field}.type");
        return Err(Error::invalid(&field, format!("{field} must be eq, ne, gt, gte, lt, lte, in, nin, and or or, not {kind:?}")));
    };
    let key = filter.get("key").and_then(Value::as_str).filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| Error::invalid(format!("{field}.key"), "a comparison needs a key: the attribute's name"))?;
    let at = format!("{field}.value");
    let value = filter.get("value").ok_or_else(|| Error::invalid(&at, "a comparison needs a value"))?;
    let many = matches!(operator, Operator::In | Operator::NotIn);
    let values = match value {
        Value::Array(listed) if many && listed.len() <= MAX_VALUES => {
            listed.iter().map(|value| attributes::value_from_json(&at, value)).collect::<Result<_>>()?
        }
        Value::Array(_) if many => return Err(Error::invalid(at, format!("{kind} takes at most {MAX_VALUES} values"))),
        _ if many => return Err(Error::invalid(at, format!("{kind} takes a list of values"))),
        one => vec![attributes::value_from_json(&at, one)?],
    };
    Ok(Comparison { attribute: key.to_owned(), operator: (*operator).into(), values })
}

/// As it was asked for.
pub(crate) fn show(filter: &Filter) -> Value {
    match &filter.filter {
        Some(Of::All(filters)) => json!({ "type": "and", "filters": filters.filters.iter().map(show).collect::<Vec<_>>() }),
        Some(Of::Any(filters)) => json!({ "type": "or", "filters": filters.filters.iter().map(show).collect::<Vec<_>>() }),
        Some(Of::Comparison(comparison)) => {
            let operator = comparison.operator();
            let name = OPERATORS.iter().find(|(_, of)| *of == operator).map_or("", |(name, _)| *name);
            let values: Vec<Value> = comparison.values.iter().map(attributes::value_to_json).collect();
            let many = matches!(operator, Operator::In | Operator::NotIn);
            let value = if many { values.into() } else { values.into_iter().next().unwrap_or_default() };
            json!({ "type": name, "key": comparison.attribute, "value": value })
        }
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_come_back_as_they_were_asked_for() {
        let filter = json!({ "type": "or", "filters": [
            { "type": "and", "filters": [{ "type": "eq", "key": "a", "value": "x" }, { "type": "gte", "key": "n", "value": 2.5 }] },
            { "type": "nin", "key": "y", "value": [1, "b", true] },
        ] });
        assert_eq!(show(&read("filters", Some(&filter)).unwrap().unwrap()), filter);
        assert!(read("filters", Some(&Value::Null)).unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let field = |filter: Value| read("filters", Some(&filter)).unwrap_err().field().unwrap().to_owned();
        assert_eq!(field(json!({ "type": "like", "key": "a", "value": 1 })), "filters.type");
        assert_eq!(field(json!("x")), "filters.type");
        assert_eq!(field(json!({ "type": "eq", "value": 1 })), "filters.key");
        assert_eq!(field(json!({ "type": "eq", "key": "a" })), "filters.value");
        assert_eq!(field(json!({ "type": "eq", "key": "a", "value": [1] })), "filters.value");
        assert_eq!(field(json!({ "type": "in", "key": "a", "value": 1 })), "filters.value");
        assert_eq!(field(json!({ "type": "and", "filters": [] })), "filters.filters");
        assert_eq!(field(json!({ "type": "and", "filters": [{ "type": "eq", "key": "", "value": 1 }] })), "filters.filters[0].key");
        let deep = (0..9).fold(json!({ "type": "eq", "key": "a", "value": 1 }), |inner, _| json!({ "type": "or", "filters": [inner] }));
        assert!(field(deep).matches("filters[0]").count() == 8);
        let wide: Vec<Value> = (0..256).map(|n| json!({ "type": "eq", "key": "a", "value": n })).collect();
        assert_eq!(field(json!({ "type": "or", "filters": wide })), "filters.filters[255]");
    }
}
