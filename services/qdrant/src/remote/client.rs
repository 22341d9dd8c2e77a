//! Qdrant's gRPC over a channel of ours: its own client believes the machine's authorities and no other.

use std::{future::Future, time::Duration};

use llama_stack_core::Error;
use qdrant_client::{
    QdrantError,
    qdrant::{self as wire, collections_client::CollectionsClient, points_client::PointsClient},
};
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::Channel,
};

pub(super) struct Client {
    channel: Channel,
    key: Key,
    /// Of one request, also where it is made twice.
    timeout: Duration,
}

/// Shown with every request.
#[derive(Clone)]
struct Key(Option<MetadataValue<Ascii>>);

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("api-key", key.clone());
        }
        Ok(request)
    }
}

impl Client {
    /// # Errors
    /// `InvalidArgument` a key that no header can hold; it is not shown.
    pub(super) fn new(channel: Channel, key: Option<&str>, timeout: Duration) -> llama_stack_core::Result<Self> {
        let key = match key.filter(|key| !key.is_empty()) {
            Some(key) => {
                let crooked = |_| Error::invalid("api_key", "api_key holds characters that a header cannot, such as a line end");
                let mut key: MetadataValue<Ascii> = key.parse().map_err(crooked)?;
                key.set_sensitive(true);
                Some(key)
            }
            None => None,
        };
        Ok(Self { channel, key: Key(key), timeout })
    }

    /// All that is asked can be asked again: a connection that has broken meanwhile is no failure yet.
    async fn answered<T, F: Future<Output = Result<Response<T>, Status>>>(&self, ask: impl Fn() -> F) -> Result<T, QdrantError> {
        let asked = async {
            match ask().await {
                Err(status) if matches!(status.code(), Code::Unavailable | Code::Internal | Code::Unknown | Code::Cancelled) => ask().await,
                answer => answer,
            }
        };
        let answer = tokio::time::timeout(self.timeout, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        answer.map(Response::into_inner).map_err(QdrantError::from)
    }
}

macro_rules! calls {
    ($($name:ident: $client:ident $method:ident, $request:ident -> $response:ident;)*) => {
        impl Client {
            $(pub(super) async fn $name(&self, request: wire::$request) -> Result<wire::$response, QdrantError> {
                let ask = || async {
                    let client = $client::with_interceptor(self.channel.clone(), self.key.clone());
                    // A page of long texts is more than tonic's own bound.
                    client.max_decoding_message_size(usize::MAX).$method(request.clone()).await
                };
                self.answered(ask).await
            })*
        }
    };
}

calls! {
    collection_info: CollectionsClient get, GetCollectionInfoRequest -> GetCollectionInfoResponse;
    create_collection: CollectionsClient create, CreateCollection -> CollectionOperationResponse;
    delete_collection: CollectionsClient delete, DeleteCollection -> CollectionOperationResponse;
    create_field_index: PointsClient create_field_index, CreateFieldIndexCollection -> PointsOperationResponse;
    upsert_points: PointsClient upsert, UpsertPoints -> PointsOperationResponse;
    delete_points: PointsClient delete, DeletePoints -> PointsOperationResponse;
    get_points: PointsClient get, GetPoints -> GetResponse;
    scroll: PointsClient scroll, ScrollPoints -> ScrollResponse;
    query: PointsClient query, QueryPoints -> QueryResponse;
    count: PointsClient count, CountPoints -> CountResponse;
}
