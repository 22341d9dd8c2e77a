//! Filters in a form between ours and those of the two engines.
//!
//! What is equal is one field of marks, `is`: a hash of an attribute's name, type and value for each attribute. One index
//! then serves all attributes, whatever they are called. What has an order is `numbers.<hash of the name>`.

use llama_stack_memory::index::BankKey;
use llama_stack_proto::v1::{
    Filter, Value,
    filter::{Comparison, Filter as Of, comparison::Operator},
    value::Value as Is,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

pub(crate) const TENANT: &str = "tenant";
pub(crate) const BANK: &str = "bank";
pub(crate) const DOCUMENT: &str = "document";
pub(crate) const IS: &str = "is";
pub(crate) const NUMBERS: &str = "numbers";

/// Fields that are compared for equality, and are indexed from the beginning.
pub(crate) const KEYWORDS: [&str; 4] = [TENANT, BANK, DOCUMENT, IS];

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    /// Of one at least.
    All(Vec<Condition>),
    /// Of one at least.
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// The field holds one of these, of which there is at least one.
    OneOf(&'static str, Vec<String>),
    /// The number of this field is there and lies so.
    Order(String, Operator, f64),
    Points(Vec<Uuid>),
}

impl Condition {
    /// Of this bank of this tenant; every condition begins with it.
    pub(crate) fn within(bank: &BankKey, also: Option<Self>) -> Self {
        let mut all = vec![Self::OneOf(TENANT, vec![bank.tenant.clone()]), Self::OneOf(BANK, vec![bank.bank_id.clone()])];
        all.extend(also);
        Self::All(all)
    }

    pub(crate) fn of_documents(documents: &[String]) -> Self {
        Self::OneOf(DOCUMENT, documents.to_vec())
    }

    /// A filter that was checked.
    pub(crate) fn of_filter(filter: &Filter) -> Self {
        match &filter.filter {
            Some(Of::All(all)) if !all.filters.is_empty() => Self::All(all.filters.iter().map(Self::of_filter).collect()),
            Some(Of::Any(any)) if !any.filters.is_empty() => Self::Any(any.filters.iter().map(Self::of_filter).collect()),
            Some(Of::Comparison(comparison)) => Self::of_comparison(comparison),
            _ => Self::never(),
        }
    }

    fn of_comparison(comparison: &Comparison) -> Self {
        let name = &comparison.attribute;
        let equal = || {
            let marks: Vec<String> = comparison.values.iter().filter_map(|value| mark(name, value)).collect();
            if marks.is_empty() { Self::never() } else { Self::OneOf(IS, marks) }
        };
        match comparison.operator() {
            Operator::Eq | Operator::In => equal(),
            Operator::Ne | Operator::NotIn => Self::Not(Box::new(equal())),
            Operator::Unspecified => Self::never(),
            order => match comparison.values.first().and_then(|value| value.value.as_ref()) {
                Some(Is::Number(than)) => Self::Order(number_field(name), order, *than),
                _ => Self::never(),
            },
        }
    }

    /// No mark is empty.
    fn never() -> Self {
        Self::OneOf(IS, vec![String::new()])
    }
}

/// What two attributes have in common that are equal. The two zeros are.
pub(crate) fn mark(name: &str, value: &Value) -> Option<String> {
    let (kind, bytes) = match value.value.as_ref()? {
        Is::Text(text) => (b't', text.as_bytes().to_vec()),
        Is::Number(number) => (b'n', (number + 0.0).to_le_bytes().to_vec()),
        Is::Boolean(boolean) => (b'b', vec![u8::from(*boolean)]),
    };
    let hash = Sha256::new().chain_update((name.len() as u64).to_le_bytes()).chain_update(name).chain_update([kind]).chain_update(bytes);
    Some(hex::encode(&hash.finalize()[..16]))
}

/// Where the number of an attribute lies, whatever characters its name has.
pub(crate) fn number_field(name: &str) -> String {
    format!("{NUMBERS}.{}", number_key(name))
}

pub(crate) fn number_key(name: &str) -> String {
    format!("n{}", hex::encode(&Sha256::digest(name)[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_mark_and_others_have_others() {
        let text = |text: &str| Value { value: Some(Is::Text(text.into())) };
        let number = |number| Value { value: Some(Is::Number(number)) };
        assert_eq!(mark("a", &number(0.0)), mark("a", &number(-0.0)));
        assert_ne!(mark("a", &number(1.0)), mark("a", &text("1")));
        assert_ne!(mark("a", &text("bc")), mark("ab", &text("c")));
        assert_eq!(mark("a", &Value::default()), None);
    }
}
