//! What a shield finds unsafe: the family's categories, those of the configuration, without those that are excluded.

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::ShieldCategory;
use serde::Deserialize;

use super::family::Family;

/// A category of the operator, or other words for one of the family's.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CategoryConfig {
    /// For example `S15`: a letter or more, then digits. One that the family has is replaced.
    code: String,
    /// Needed for a code that the family does not have.
    #[serde(default)]
    name: String,
    /// What belongs to it, in a sentence or more.
    #[serde(default)]
    definition: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Category {
    pub(super) code: String,
    pub(super) name: String,
    pub(super) definition: String,
    pub(super) excluded: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy(Vec<Category>);

impl Policy {
    pub(super) fn of(family: Family) -> Self {
        let category = |(code, name): &(&str, &str)| Category {
            code: (*code).into(),
            name: (*name).into(),
            definition: String::new(),
            excluded: false,
        };
        Self(family.categories().iter().map(category).collect())
    }

    /// # Errors
    /// `InvalidArgument`, with the path of the field.
    pub(super) fn configured(family: Family, categories: &[CategoryConfig], excluded: &[String]) -> Result<Self> {
        let mut policy = Self::of(family);
        for (index, config) in categories.iter().enumerate() {
            policy.put(config).map_err(|(field, what)| Error::invalid(format!("config.categories[{index}].{field}"), what))?;
        }
        for (index, code) in excluded.iter().enumerate() {
            let there: Vec<String> = policy.0.iter().map(|category| category.code.clone()).collect();
            let found = policy.0.iter_mut().find(|category| category.code.eq_ignore_ascii_case(code.trim()));
            let absent = || {
                let what = format!("no category {code:?}; there is: {}", there.join(", "));
                Error::invalid(format!("config.excluded_categories[{index}]"), what)
            };
            found.ok_or_else(absent)?.excluded = true;
        }
        if policy.asked().next().is_none() {
            return Err(Error::invalid("config.excluded_categories", "every category is excluded: the shield would find nothing"));
        }
        Ok(policy)
    }

    fn put(&mut self, config: &CategoryConfig) -> Result<(), (&'static str, String)> {
        if !is_code(&config.code) {
            return Err(("code", format!("{:?} is no code like S15: letters, then digits", config.code)));
        }
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (code, name) = (config.code.to_ascii_uppercase(), one_line(&config.name).trim_end_matches('.').to_owned());
        let definition = config.definition.trim().to_owned();
        if let Some(there) = self.0.iter_mut().find(|there| there.code == code) {
            there.name = if name.is_empty() { std::mem::take(&mut there.name) } else { name };
            there.definition = definition;
            return Ok(());
        }
        if name.is_empty() {
            return Err(("name", "missing field: a code that the model does not know needs a name".into()));
        }
        self.0.push(Category { code, name, definition, excluded: false });
        Ok(())
    }

    /// Those that the model is told of.
    pub(super) fn asked(&self) -> impl Iterator<Item = &Category> {
        self.0.iter().filter(|category| !category.excluded)
    }

    /// A code as it was written, in whatever case.
    pub(super) fn find(&self, code: &str) -> Option<&Category> {
        self.0.iter().find(|category| category.code.eq_ignore_ascii_case(code))
    }

    /// Whether more than exclusions differs from what the model was trained on.
    pub(super) fn is_customised(&self, family: Family) -> bool {
        let own = Self::of(family);
        self.0.iter().any(|category| {
            let found = own.find(&category.code);
            found.is_none_or(|own| own.name != category.name || own.definition != category.definition)
        })
    }

    pub(super) fn listed(&self) -> Vec<ShieldCategory> {
        self.asked().map(|category| ShieldCategory { code: category.code.clone(), name: category.name.clone() }).collect()
    }
}

/// Letters, then digits.
pub(super) fn is_code(text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    digits.len() < text.len() && !digits.is_empty() && digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_digit())
}
