//! A request's filter as conditions on a point's payload.
//!
//! A chunk without the attribute is equal to nothing: `eq`, `in` and the orders leave it out, `ne` and `nin` keep it. So is a
//! value of another type than the filter's. Only numbers have an order.

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{
    Filter, Value,
    filter::{Comparison, Filter as Kind, comparison::Operator},
    value::Value as Scalar,
};

use super::point::{BOOLEAN, NUMBER, TEXT, attribute_key};

/// Deeper than anyone writes by hand, and shallow enough for every stack.
const MAX_DEPTH: usize = 16;
/// Of all comparisons and their values together.
const MAX_VALUES: usize = 4096;

#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// The payload's text is one of these.
    TextIn {
        key: String,
        values: Vec<String>,
    },
    Boolean {
        key: String,
        value: bool,
    },
    Number {
        key: String,
        range: Range,
    },
}

/// Bounds that are there must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Range {
    pub gt: Option<f64>,
    pub gte: Option<f64>,
    pub lt: Option<f64>,
    pub lte: Option<f64>,
}

impl Condition {
    /// # Errors
    /// `InvalidArgument` for a filter that is empty, too deep or too large, or that cannot be compared.
    pub fn new(filter: &Filter) -> Result<Self> {
        let mut left = MAX_VALUES;
        read(filter, "filter", MAX_DEPTH, &mut left)
    }
}

fn read(filter: &Filter, path: &str, depth: usize, left: &mut usize) -> Result<Condition> {
    if depth == 0 {
        return Err(Error::invalid("filter", format!("filters may be nested {MAX_DEPTH} deep at most")));
    }
    let list = |filters: &[Filter], name: &str, left: &mut usize| -> Result<Vec<Condition>> {
        if filters.is_empty() {
            return Err(Error::invalid(format!("{path}.{name}"), "at least one filter is needed here"));
        }
        let each = |(at, filter)| read(filter, &format!("{path}.{name}[{at}]"), depth - 1, left);
        filters.iter().enumerate().map(each).collect()
    };
    match &filter.filter {
        Some(Kind::All(all)) => list(&all.filters, "all", left).map(Condition::All),
        Some(Kind::Any(any)) => list(&any.filters, "any", left).map(Condition::Any),
        Some(Kind::Comparison(comparison)) => compare(comparison, path, left),
        None => Err(Error::invalid(path.to_owned(), "a filter is a comparison, `all` or `any`")),
    }
}

fn compare(comparison: &Comparison, path: &str, left: &mut usize) -> Result<Condition> {
    let operator = comparison.operator();
    let many = matches!(operator, Operator::In | Operator::NotIn);
    let values = &comparison.values;
    if comparison.attribute.is_empty() {
        return Err(Error::invalid(format!("{path}.attribute"), "an attribute's name is needed"));
    }
    if !many && values.len() != 1 {
        return Err(Error::invalid(format!("{path}.values"), format!("this operator takes one value, not {}", values.len())));
    }
    *left = left
        .checked_sub(values.len().max(1))
        .ok_or_else(|| Error::invalid("filter", format!("a filter may have {MAX_VALUES} values at most")))?;
    let name = &comparison.attribute;
    match operator {
        Operator::Eq | Operator::In => equal(name, values, path),
        Operator::Ne | Operator::NotIn => Ok(Condition::Not(Box::new(equal(name, values, path)?))),
        Operator::Gt => ordered(name, values, path, |range, bound| range.gt = Some(bound)),
        Operator::Gte => ordered(name, values, path, |range, bound| range.gte = Some(bound)),
        Operator::Lt => ordered(name, values, path, |range, bound| range.lt = Some(bound)),
        Operator::Lte => ordered(name, values, path, |range, bound| range.lte = Some(bound)),
        Operator::Unspecified => Err(Error::invalid(format!("{path}.operator"), "an operator is needed")),
    }
}

/// The attribute equals one of `values`: texts together, the others one by one. Of none: never.
fn equal(name: &str, values: &[Value], path: &str) -> Result<Condition> {
    let (mut texts, mut any) = (Vec::new(), Vec::new());
    for value in values {
        match &value.value {
            Some(Scalar::Text(text)) => texts.push(text.clone()),
            Some(Scalar::Boolean(value)) => any.push(Condition::Boolean { key: attribute_key(BOOLEAN, name), value: *value }),
            Some(Scalar::Number(number)) => {
                let number = finite(*number, path)?;
                let range = Range { gte: Some(number), lte: Some(number), ..Range::default() };
                any.push(Condition::Number { key: attribute_key(NUMBER, name), range });
            }
            None => return Err(Error::invalid(format!("{path}.values"), "a value is a text, a number or a boolean")),
        }
    }
    if !texts.is_empty() || any.is_empty() {
        any.push(Condition::TextIn { key: attribute_key(TEXT, name), values: texts });
    }
    Ok(if any.len() == 1 { any.remove(0) } else { Condition::Any(any) })
}

fn ordered(name: &str, values: &[Value], path: &str, bound: impl FnOnce(&mut Range, f64)) -> Result<Condition> {
    let Some(Scalar::Number(number)) = values.first().and_then(|value| value.value.as_ref()) else {
        return Err(Error::invalid(
            format!("{path}.values"),
            "only numbers have an order; compare texts and booleans with eq, ne, in or nin",
        ));
    };
    let mut range = Range::default();
    bound(&mut range, finite(*number, path)?);
    Ok(Condition::Number { key: attribute_key(NUMBER, name), range })
}

fn finite(number: f64, path: &str) -> Result<f64> {
    if number.is_finite() { Ok(number) } else { Err(Error::invalid(format!("{path}.values"), "a number must be finite")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llama_stack_proto::v1::filter::Filters;

    fn number(value: f64) -> Value {
        Value { value: Some(Scalar::Number(value)) }
    }

    fn text(value: &str) -> Value {
        Value { value: Some(Scalar::Text(value.into())) }
    }

    fn comparison(operator: Operator, values: Vec<Value>) -> Filter {
        Filter { filter: Some(Kind::Comparison(Comparison { attribute: "year".into(), operator: operator.into(), values })) }
    }

    #[test]
    fn mixed_values_are_compared_each_with_its_own_type() {
        let condition = Condition::new(&comparison(Operator::In, vec![text("a"), number(2.0), text("b")])).unwrap();
        let Condition::Any(any) = condition else { panic!("{condition:?}") };
        assert_eq!(any.len(), 2);
        assert_eq!(any[1], Condition::TextIn { key: attribute_key(TEXT, "year"), values: vec!["a".into(), "b".into()] });
    }

    #[test]
    fn what_cannot_be_compared_is_refused_with_its_place() {
        let deep = (0..40).fold(comparison(Operator::Eq, vec![number(1.0)]), |filter, _| Filter {
            filter: Some(Kind::All(Filters { filters: vec![filter] })),
        });
        let nested = Filter { filter: Some(Kind::Any(Filters { filters: vec![comparison(Operator::Gt, vec![text("a")])] })) };
        for (filter, field) in [
            (Filter::default(), "filter"),
            (nested, "filter.any[0].values"),
            (comparison(Operator::Eq, vec![]), "filter.values"),
            (comparison(Operator::Lt, vec![number(f64::NAN)]), "filter.values"),
            (comparison(Operator::In, vec![number(1.0); 5000]), "filter"),
            (Filter { filter: Some(Kind::All(Filters::default())) }, "filter.all"),
            (deep, "filter"),
        ] {
            assert_eq!(Condition::new(&filter).unwrap_err().field(), Some(field));
        }
    }
}
