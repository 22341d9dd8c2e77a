use std::{fmt, marker::PhantomData};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{
        self, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

/// A text, or a list. Read by hand: serde's untagged enums lose the path and the reason of an error.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(untagged)]
pub(crate) enum TextOr<T> {
    Text(String),
    List(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text.into()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(TextOr::List)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl TextOr<String> {
    pub(crate) fn into_list(self) -> Vec<String> {
        match self {
            TextOr::Text(text) => vec![text],
            TextOr::List(list) => list,
        }
    }
}

/// One entry of a list: a text, or an object. Read by hand, for the same reason.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OneOf<T> {
    Text(String),
    Object(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOf<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOf::Text(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(OneOf::Object)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// An input as texts or tokens: a string, a list of strings, a list of tokens, or a list of lists of tokens.
pub(crate) type Inputs = TextOr<Input>;

/// One entry of such a list.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Input {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

/// What a model is to read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Input;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token or an array of tokens")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Input, E> {
                Ok(Input::Text(text.into()))
            }

            fn visit_u64<E: de::Error>(self, token: u64) -> Result<Input, E> {
                u32::try_from(token).map(Input::Token).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(token), &self))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Input, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Input::Tokens)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

impl Inputs {
    /// Whether there is one input, which is in no list.
    pub(crate) fn is_one(&self) -> bool {
        match self {
            TextOr::Text(_) => true,
            TextOr::List(list) => matches!(list.first(), Some(Input::Token(_))),
        }
    }

    /// The prompts, in order. A flat list of tokens is one prompt.
    ///
    /// # Errors
    /// The index of the first entry that is of another kind than the first.
    pub(crate) fn into_prompts(self) -> Result<Vec<Prompt>, usize> {
        let list = match self {
            TextOr::Text(text) => return Ok(vec![Prompt::Text(text)]),
            TextOr::List(list) => list,
        };
        if let Some(Input::Token(_)) = list.first() {
            let tokens = list.into_iter().enumerate().map(|(index, input)| match input {
                Input::Token(token) => Ok(token),
                _ => Err(index),
            });
            return Ok(vec![Prompt::Tokens(tokens.collect::<Result<_, _>>()?)]);
        }
        let prompts = list.into_iter().enumerate().map(|(index, input)| match input {
            Input::Text(text) => Ok(Prompt::Text(text)),
            Input::Tokens(tokens) => Ok(Prompt::Tokens(tokens)),
            Input::Token(_) => Err(index),
        });
        prompts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(json: &str) -> Result<Vec<Prompt>, usize> {
        serde_json::from_str::<Inputs>(json).unwrap().into_prompts()
    }

    #[test]
    fn every_form_of_an_input_is_read() {
        let text = |text: &str| Prompt::Text(text.into());
        assert_eq!(prompts(r#""a""#).unwrap(), [text("a")]);
        assert_eq!(prompts(r#"["a","b"]"#).unwrap(), [text("a"), text("b")]);
        assert_eq!(prompts("[1,2]").unwrap(), [Prompt::Tokens(vec![1, 2])]);
        assert_eq!(prompts("[[1],[2,3]]").unwrap(), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])]);
        assert_eq!(prompts(r#"[1,"a"]"#), Err(1));
        assert_eq!(prompts(r#"["a",1]"#), Err(1));
    }
}
