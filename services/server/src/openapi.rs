//! Routes and their OpenAPI 3.1 document, made together: a route that is added is described.

use axum::{Router, routing::MethodRouter};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

pub(crate) use crate::identity::route;
use crate::{
    http::{AppState, ErrorBody},
    identity::Route,
};

/// Routes, each with what the document says of it.
pub(crate) struct Api {
    router: Router<AppState>,
    operations: Vec<(String, &'static str, Operation)>,
}

/// What the document says of one method of one route.
pub(crate) struct Operation {
    summary: &'static str,
    takes: Option<Describe>,
    /// The body is a form.
    form: bool,
    returns: Returns,
    streams: Option<Describe>,
}

type Describe = fn(&mut Schemas) -> Value;

enum Returns {
    Text,
    Any,
    Json(Describe),
}

/// Schemas of bodies: requests as they are read, answers as they are written.
struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Operation {
    pub(crate) fn new(summary: &'static str) -> Self {
        Self { summary, takes: None, form: false, returns: Returns::Any, streams: None }
    }

    pub(crate) fn takes<T: JsonSchema>(mut self) -> Self {
        self.takes = Some(|schemas| schemas.requests.subschema_for::<T>().to_value());
        self
    }

    /// A form, whose fields this type describes.
    pub(crate) fn takes_form<T: JsonSchema>(self) -> Self {
        Self { form: true, ..self.takes::<T>() }
    }

    pub(crate) fn returns<T: JsonSchema>(mut self) -> Self {
        self.returns = Returns::Json(|schemas| schemas.answers.subschema_for::<T>().to_value());
        self
    }

    /// With `stream: true`: server-sent events, each of this type.
    pub(crate) fn streams<T: JsonSchema>(mut self) -> Self {
        self.streams = Some(|schemas| schemas.answers.subschema_for::<T>().to_value());
        self
    }

    pub(crate) fn returns_text(mut self) -> Self {
        self.returns = Returns::Text;
        self
    }

    pub(crate) fn returns_any(mut self) -> Self {
        self.returns = Returns::Any;
        self
    }

    fn document(&self, path: &str, schemas: &mut Schemas) -> Value {
        let mut content = match self.returns {
            Returns::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
            Returns::Any => json!({ "application/json": { "schema": { "type": "object" } } }),
            Returns::Json(describe) => json!({ "application/json": { "schema": describe(schemas) } }),
        };
        if let Some(describe) = self.streams {
            content["text/event-stream"] = json!({ "schema": describe(schemas) });
        }
        let mut operation = json!({
            "summary": self.summary,
            "responses": {
                "200": { "description": "OK", "content": content },
                "default": { "$ref": "#/components/responses/Error" },
            },
        });
        let parameters: Vec<Value> =
            parameters(path).map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })).collect();
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(describe) = self.takes {
            let schema = describe(schemas);
            let kind = if self.form { "multipart/form-data" } else { "application/json" };
            operation["requestBody"] = json!({ "required": true, "content": { kind: { "schema": schema } } });
        }
        operation
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { router: Router::new(), operations: Vec::new() }
    }
}

impl Api {
    pub(crate) fn get(&mut self, path: Route, handler: MethodRouter<AppState>, operation: Operation) {
        self.route(path, "get", handler, operation);
    }

    pub(crate) fn post(&mut self, path: Route, handler: MethodRouter<AppState>, operation: Operation) {
        self.route(path, "post", handler, operation);
    }

    fn route(&mut self, path: Route, method: &'static str, handler: MethodRouter<AppState>, operation: Operation) {
        self.router = std::mem::take(&mut self.router).route(path.path(), handler);
        self.describe(path, method, operation);
    }

    /// Says what another method of a route does, that came with the route's handler.
    pub(crate) fn describe(&mut self, path: Route, method: &'static str, operation: Operation) {
        // A parameter that takes the rest of the path is `{*name}` to the router, `{name}` in the document.
        self.operations.push((path.path().replace("{*", "{"), method, operation));
    }

    pub(crate) fn into_router(self) -> Router<AppState> {
        self.router
    }

    fn document(&self) -> Value {
        let settings = || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
        let mut schemas =
            Schemas { requests: settings().for_deserialize().into_generator(), answers: settings().for_serialize().into_generator() };
        let mut paths = Map::new();
        for (path, method, operation) in &self.operations {
            let described = operation.document(path, &mut schemas);
            let methods = paths.entry(path).or_insert_with(|| json!({}));
            methods[*method] = described;
        }
        let error = schemas.answers.subschema_for::<ErrorBody<'_>>().to_value();
        let mut named = schemas.requests.take_definitions(true);
        named.extend(schemas.answers.take_definitions(true));
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "llama-stack",
                "summary": "Agents, tools and models over the OpenAI-compatible API. The same services speak gRPC on this port.",
                "version": env!("CARGO_PKG_VERSION"),
            },
            "paths": paths,
            "components": {
                "schemas": named,
                "responses": { "Error": { "description": "What went wrong", "content": { "application/json": { "schema": error } } } },
            },
        })
    }
}

/// The names between braces.
fn parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// The OpenAPI document of every HTTP route.
pub fn document() -> Value {
    crate::http::api().document()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The paths that axum knows, read from how the router shows itself: there is no other way to list them.
    /// `/` and `__private` are the fallback's.
    fn routed() -> BTreeSet<String> {
        let shown = format!("{:?}", crate::http::api().into_router());
        let paths = shown.split('"').filter(|text| text.starts_with('/'));
        paths.map(|path| path.replace("{*", "{")).filter(|path| path != "/" && !path.contains("__private")).collect()
    }

    #[test]
    fn every_route_is_described_and_every_description_is_routed() {
        let document = document();
        let described: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
        assert!(described.contains("/v1/chat/completions"));
        assert_eq!(routed(), described);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(Into::into));
                    map.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 10);
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}
