//! What a URL says: its path and its query, with errors as bodies have them.

use std::error::Error as _;

use ::http::request::Parts;
use axum::extract::{self, FromRequestParts, rejection::QueryRejection};
use serde::de::{DeserializeOwned, value};

use llama_stack_core::{Code, Error};

use super::{ApiError, json::wrong_field};

/// axum's, whose own refusal is a plain text.
pub(crate) struct Query<T>(pub(crate) T);

/// As [`Query`].
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = extract::Query::try_from_uri(&parts.uri).map_err(|rejection| wrong_query(&rejection))?;
        Ok(Self(query.0))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = extract::Path::<T>::from_request_parts(parts, state).await.map_err(|rejection| {
            let code = if rejection.status().is_client_error() { Code::InvalidArgument } else { Code::Internal };
            Error::new(code, rejection.body_text()).with_reason("invalid_path")
        })?;
        Ok(Self(path.0))
    }
}

fn wrong_query(rejection: &QueryRejection) -> Error {
    let mut cause = rejection.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<serde_path_to_error::Error<value::Error>>() {
            return wrong_field("the query", &error.path().to_string(), in_words(&error.inner().to_string()));
        }
        cause = error.source();
    }
    Error::new(Code::InvalidArgument, rejection.body_text()).with_reason("invalid_type")
}

/// What the standard library says of a number does not say what would be right.
fn in_words(said: &str) -> &str {
    match said {
        "invalid digit found in string" | "cannot parse integer from empty string" => "must be a whole number",
        "number too large to fit in target type" => "the number is too large",
        "number too small to fit in target type" => "the number is too small",
        "invalid float literal" | "cannot parse float from empty string" => "must be a number",
        said => said,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Page {
        #[expect(dead_code)]
        limit: Option<usize>,
        #[expect(dead_code)]
        order: String,
    }

    fn told(query: &str) -> Option<(String, Option<String>)> {
        let uri = format!("/v1/files?{query}").parse().unwrap();
        let error = wrong_query(&extract::Query::<Page>::try_from_uri(&uri).err()?);
        Some((error.message().to_owned(), error.field().map(Into::into)))
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        assert_eq!(told("order=asc&limit=5&other=1"), None);
        let (message, field) = told("order=asc&limit=abc").unwrap();
        assert_eq!((message.as_str(), field.as_deref()), ("limit: must be a whole number", Some("limit")));
        let (message, field) = told("limit=5").unwrap();
        assert_eq!((message.as_str(), field.as_deref()), ("order: missing field", Some("order")));
    }
}
