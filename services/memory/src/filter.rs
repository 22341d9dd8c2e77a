//! Conditions on attributes: whether they can be compared at all, and whether a chunk meets them.

use std::{cmp::Ordering, collections::HashMap};

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{
    Filter, Value,
    filter::{Comparison, Filter as Of, comparison::Operator},
    value::Value as Is,
};

/// Filters in filters.
pub const MAX_DEPTH: usize = 8;
/// Comparisons of one filter, and values that they compare with.
pub const MAX_COMPARISONS: usize = 100;
pub const MAX_VALUES: usize = 1_000;

/// # Errors
/// `InvalidArgument` on `filter…`, with the place: nested more than 8 deep, too many comparisons or values, no operator, no
/// value or more than one where one is compared, or an order of what has none.
pub fn check(filter: &Filter) -> Result<()> {
    let (mut comparisons, mut values) = (0, 0);
    walk(filter, "filter", 1, &mut |at, comparison| {
        comparisons += 1;
        values += comparison.values.len();
        if comparisons > MAX_COMPARISONS || values > MAX_VALUES {
            let message = format!("a filter holds at most {MAX_COMPARISONS} comparisons with at most {MAX_VALUES} values together");
            return Err(Error::invalid("filter", message));
        }
        check_one(at, comparison)
    })
}

fn walk(filter: &Filter, at: &str, depth: usize, each: &mut dyn FnMut(&str, &Comparison) -> Result<()>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::invalid("filter", format!("filters are nested more than {MAX_DEPTH} deep")));
    }
    let (name, filters) = match &filter.filter {
        Some(Of::Comparison(comparison)) => return each(&format!("{at}.comparison"), comparison),
        Some(Of::All(all)) => ("all", &all.filters),
        Some(Of::Any(any)) => ("any", &any.filters),
        None => return Err(Error::invalid(at, format!("{at} is empty: it must be a comparison, all or any"))),
    };
    if filters.is_empty() {
        return Err(Error::invalid(at, format!("{at}.{name} is empty: name at least one filter")));
    }
    filters.iter().enumerate().try_for_each(|(n, filter)| walk(filter, &format!("{at}.{name}[{n}]"), depth + 1, each))
}

fn check_one(at: &str, comparison: &Comparison) -> Result<()> {
    let bad = |message: String| Err(Error::invalid(at, message));
    if comparison.attribute.is_empty() {
        return bad(format!("{at}.attribute is empty"));
    }
    let name = &comparison.attribute;
    let operator = match Operator::try_from(comparison.operator) {
        Ok(operator) if operator != Operator::Unspecified => operator,
        _ => return bad(format!("the comparison of {name:?} has no operator: it is one of eq, ne, gt, gte, lt, lte, in and nin")),
    };
    if comparison.values.iter().any(|value| value.value.is_none()) {
        return bad(format!("the comparison of {name:?} has a value that is neither text, number nor boolean"));
    }
    if comparison.values.iter().any(|value| matches!(value.value, Some(Is::Number(number)) if !number.is_finite())) {
        return bad(format!("the comparison of {name:?} has a number that is not finite"));
    }
    match operator {
        Operator::In | Operator::NotIn => Ok(()),
        _ if comparison.values.len() != 1 => {
            bad(format!("the comparison of {name:?} has {} values: it takes exactly one", comparison.values.len()))
        }
        Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte if !matches!(comparison.values[0].value, Some(Is::Number(_))) => {
            bad(format!("{name:?} is compared by its order, which only numbers have"))
        }
        _ => Ok(()),
    }
}

/// Whether attributes meet a filter that was checked. What is not there, or is of another type, is equal to nothing,
/// greater and less than nothing, and in no list; so `ne` and `nin` hold for it.
pub fn matches(filter: &Filter, attributes: &HashMap<String, Value>) -> bool {
    match &filter.filter {
        Some(Of::All(all)) => all.filters.iter().all(|filter| matches(filter, attributes)),
        Some(Of::Any(any)) => any.filters.iter().any(|filter| matches(filter, attributes)),
        Some(Of::Comparison(comparison)) => meets(comparison, attributes.get(&comparison.attribute)),
        None => false,
    }
}

fn meets(comparison: &Comparison, there: Option<&Value>) -> bool {
    let equal = |value: &Value| there.is_some_and(|there| there.value.is_some() && there.value == value.value);
    let order = |wanted: &[Ordering]| {
        let pair = (there.and_then(|there| there.value.as_ref()), comparison.values.first().and_then(|value| value.value.as_ref()));
        let (Some(Is::Number(there)), Some(Is::Number(than))) = pair else { return false };
        there.partial_cmp(than).is_some_and(|order| wanted.contains(&order))
    };
    match comparison.operator() {
        Operator::Eq | Operator::In => comparison.values.iter().any(equal),
        Operator::Ne | Operator::NotIn => !comparison.values.iter().any(equal),
        Operator::Gt => order(&[Ordering::Greater]),
        Operator::Gte => order(&[Ordering::Greater, Ordering::Equal]),
        Operator::Lt => order(&[Ordering::Less]),
        Operator::Lte => order(&[Ordering::Less, Ordering::Equal]),
        Operator::Unspecified => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llama_stack_proto::v1::filter::Filters;

    fn number(number: f64) -> Value {
        Value { value: Some(Is::Number(number)) }
    }

    fn text(text: &str) -> Value {
        Value { value: Some(Is::Text(text.into())) }
    }

    fn compare(attribute: &str, operator: Operator, values: &[Value]) -> Filter {
        let comparison = Comparison { attribute: attribute.into(), operator: operator.into(), values: values.to_vec() };
        Filter { filter: Some(Of::Comparison(comparison)) }
    }

    fn any(filters: Vec<Filter>) -> Filter {
        Filter { filter: Some(Of::Any(Filters { filters })) }
    }

    #[test]
    fn each_operator_means_what_it_says() {
        let there = HashMap::from([("year".to_owned(), number(2020.0)), ("lang".to_owned(), text("en"))]);
        let year = |operator, value| matches(&compare("year", operator, &[number(value)]), &there);
        assert_eq!(
            [Operator::Eq, Operator::Ne, Operator::Gt, Operator::Gte, Operator::Lt, Operator::Lte].map(|o| year(o, 2020.0)),
            [true, false, false, true, false, true]
        );
        assert_eq!([Operator::Gt, Operator::Lt].map(|o| year(o, 2019.0)), [true, false]);
        let langs = [text("de"), text("en")];
        assert!(matches(&compare("lang", Operator::In, &langs), &there));
        assert!(!matches(&compare("lang", Operator::NotIn, &langs), &there));
        // Not there, or of another type.
        assert!(!matches(&compare("none", Operator::Eq, &[text("x")]), &there));
        assert!(matches(&compare("none", Operator::Ne, &[text("x")]), &there));
        assert!(matches(&compare("none", Operator::NotIn, &[text("x")]), &there));
        assert!(!matches(&compare("lang", Operator::Gt, &[number(1.0)]), &there));
        assert!(!matches(&compare("year", Operator::Eq, &[text("2020")]), &there));
    }

    #[test]
    fn what_cannot_be_compared_is_named() {
        let of = |filter: &Filter| check(filter).unwrap_err().field().unwrap_or_default().to_owned();
        let right = compare("a", Operator::Eq, &[number(1.0)]);
        check(&right).unwrap();
        assert_eq!(of(&Filter::default()), "filter");
        assert_eq!(of(&any(vec![])), "filter");
        assert_eq!(of(&any(vec![right.clone(), compare("a", Operator::Gt, &[text("x")])])), "filter.any[1].comparison");
        assert_eq!(of(&compare("a", Operator::Eq, &[])), "filter.comparison");
        assert_eq!(of(&compare("", Operator::Eq, &[number(1.0)])), "filter.comparison");
        assert_eq!(of(&compare("a", Operator::Unspecified, &[number(1.0)])), "filter.comparison");
        assert_eq!(of(&compare("a", Operator::Lt, &[number(f64::NAN)])), "filter.comparison");
        let deep = (0..MAX_DEPTH - 1).fold(right.clone(), |inner, _| any(vec![inner]));
        check(&deep).unwrap();
        assert!(check(&any(vec![deep])).unwrap_err().message().contains("8 deep"));
        assert!(check(&any(vec![right; MAX_COMPARISONS + 1])).is_err());
    }
}
