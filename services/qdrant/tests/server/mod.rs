//! A server of Qdrant's gRPC API over the embedded engine: as much of it as banks ask for, over a real socket.
#![allow(dead_code, reason = "each test takes what it needs")]

mod convert;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use qdrant_client::qdrant::{
    self as wire,
    collections_server::{Collections, CollectionsServer},
    points_server::{Points, PointsServer},
};
use qdrant_edge::{
    CountRequest, CreateIndex, EdgeConfig, EdgeShard, EdgeSparseVectorParams, EdgeVectorParams, FieldIndexOperations, Modifier,
    PayloadFieldSchema, PayloadSchemaType, PointInsertOperations, PointOperations, ScrollRequest, SearchRequest, UpdateOperation,
    WithPayloadInterface,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Identity, ServerTlsConfig},
};

pub const KEY: &str = "the key of the test's server";

struct Collection {
    made: wire::CreateCollection,
    shard: EdgeShard,
}

#[derive(Clone)]
pub struct Server {
    folder: Arc<tempfile::TempDir>,
    collections: Arc<Mutex<HashMap<String, Collection>>>,
}

type Answer<T> = Result<Response<T>, Status>;

/// On a port of its own; it ends with the test's runtime. Returns its address.
pub async fn start() -> String {
    format!("http://{}", serve(tonic::transport::Server::builder()).await)
}

/// The same over TLS, as the name that the certificate has.
pub async fn start_tls(identity: Identity) -> String {
    let tls = ServerTlsConfig::new().identity(identity);
    format!("https://{}", serve(tonic::transport::Server::builder().tls_config(tls).unwrap()).await)
}

async fn serve(mut builder: tonic::transport::Server) -> SocketAddr {
    let server = Server { folder: Arc::new(tempfile::tempdir().unwrap()), collections: Arc::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let allowed = |request: Request<()>| match request.metadata().get("api-key") {
        Some(key) if key == KEY => Ok(request),
        _ => Err(Status::unauthenticated("no key")),
    };
    let services = builder
        .add_service(CollectionsServer::with_interceptor(server.clone(), allowed))
        .add_service(PointsServer::with_interceptor(server, allowed));
    tokio::spawn(services.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

impl Server {
    fn with<T>(&self, name: &str, ask: impl FnOnce(&Collection) -> Result<T, Status>) -> Result<T, Status> {
        let collections = self.collections.lock().unwrap();
        let none = || Status::not_found(format!("Collection `{name}` doesn't exist!"));
        ask(collections.get(name).ok_or_else(none)?)
    }

    fn update(&self, name: &str, operation: UpdateOperation) -> Answer<wire::PointsOperationResponse> {
        self.with(name, |collection| collection.shard.update(operation).map_err(internal))?;
        Ok(Response::new(wire::PointsOperationResponse::default()))
    }
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

/// What the trait has besides what is written out: nobody here asks for it.
macro_rules! serve {
    ($service:ident { $($written:tt)* } $($name:ident: $request:ident -> $response:ident,)*) => {
        #[tonic::async_trait]
        impl $service for Server {
            $($written)*
            $(async fn $name(&self, _: Request<wire::$request>) -> Answer<wire::$response> {
                Err(Status::unimplemented(stringify!($name)))
            })*
        }
    };
}

serve! {
    Collections {
        async fn get(&self, request: Request<wire::GetCollectionInfoRequest>) -> Answer<wire::GetCollectionInfoResponse> {
            let info = self.with(&request.into_inner().collection_name, |collection| {
                let info = collection.shard.info();
                let params = wire::CollectionParams {
                    vectors_config: collection.made.vectors_config.clone(),
                    sparse_vectors_config: collection.made.sparse_vectors_config.clone(),
                    ..wire::CollectionParams::default()
                };
                Ok(wire::CollectionInfo {
                    config: Some(wire::CollectionConfig { params: Some(params), ..wire::CollectionConfig::default() }),
                    points_count: Some(info.points_count as u64),
                    indexed_vectors_count: Some(info.indexed_vectors_count as u64),
                    payload_schema: info.payload_schema.keys().map(|key| (key.to_string(), wire::PayloadSchemaInfo::default())).collect(),
                    ..wire::CollectionInfo::default()
                })
            })?;
            Ok(Response::new(wire::GetCollectionInfoResponse { result: Some(info), time: 0.0 }))
        }

        async fn create(&self, request: Request<wire::CreateCollection>) -> Answer<wire::CollectionOperationResponse> {
            let made = request.into_inner();
            let mut collections = self.collections.lock().unwrap();
            if collections.contains_key(&made.collection_name) {
                return Err(Status::already_exists("Collection already exists!"));
            }
            let mut config = EdgeConfig::default();
            if let Some(wire::vectors_config::Config::ParamsMap(map)) = made.vectors_config.clone().and_then(|config| config.config) {
                for (name, params) in map.map {
                    assert_eq!(params.distance(), wire::Distance::Cosine);
                    config.vectors.insert(name, EdgeVectorParams::builder(params.size as usize, qdrant_edge::Distance::Cosine).build());
                }
            }
            for (name, params) in made.sparse_vectors_config.clone().unwrap_or_default().map {
                assert_eq!(params.modifier(), wire::Modifier::Idf);
                config.sparse_vectors.insert(name, EdgeSparseVectorParams::builder().modifier(Modifier::Idf).build());
            }
            let folder = self.folder.path().join(&made.collection_name);
            std::fs::create_dir_all(&folder).map_err(internal)?;
            let shard = EdgeShard::new(&folder, config).map_err(internal)?;
            collections.insert(made.collection_name.clone(), Collection { made, shard });
            Ok(Response::new(wire::CollectionOperationResponse { result: true, time: 0.0 }))
        }

        async fn delete(&self, request: Request<wire::DeleteCollection>) -> Answer<wire::CollectionOperationResponse> {
            let name = request.into_inner().collection_name;
            let result = self.collections.lock().unwrap().remove(&name).is_some();
            std::fs::remove_dir_all(self.folder.path().join(name)).ok();
            Ok(Response::new(wire::CollectionOperationResponse { result, time: 0.0 }))
        }
    }
    list: ListCollectionsRequest -> ListCollectionsResponse,
    update: UpdateCollection -> CollectionOperationResponse,
    update_aliases: ChangeAliases -> CollectionOperationResponse,
    list_collection_aliases: ListCollectionAliasesRequest -> ListAliasesResponse,
    list_aliases: ListAliasesRequest -> ListAliasesResponse,
    collection_cluster_info: CollectionClusterInfoRequest -> CollectionClusterInfoResponse,
    collection_exists: CollectionExistsRequest -> CollectionExistsResponse,
    update_collection_cluster_setup: UpdateCollectionClusterSetupRequest -> UpdateCollectionClusterSetupResponse,
    create_shard_key: CreateShardKeyRequest -> CreateShardKeyResponse,
    delete_shard_key: DeleteShardKeyRequest -> DeleteShardKeyResponse,
    list_shard_keys: ListShardKeysRequest -> ListShardKeysResponse,
}

serve! {
    Points {
        async fn upsert(&self, request: Request<wire::UpsertPoints>) -> Answer<wire::PointsOperationResponse> {
            let request = request.into_inner();
            assert_eq!(request.wait, Some(true), "acknowledged before it is stored");
            let points = request.points.into_iter().map(convert::point).collect();
            let operation = PointOperations::UpsertPoints(PointInsertOperations::PointsList(points));
            self.update(&request.collection_name, UpdateOperation::PointOperation(operation))
        }

        async fn delete(&self, request: Request<wire::DeletePoints>) -> Answer<wire::PointsOperationResponse> {
            let request = request.into_inner();
            assert_eq!(request.wait, Some(true), "acknowledged before it is deleted");
            let Some(wire::points_selector::PointsSelectorOneOf::Filter(filter)) =
                request.points.and_then(|points| points.points_selector_one_of)
            else {
                return Err(Status::unimplemented("by filter only"));
            };
            let operation = PointOperations::DeletePointsByFilter(convert::filter(filter));
            self.update(&request.collection_name, UpdateOperation::PointOperation(operation))
        }

        async fn get(&self, request: Request<wire::GetPoints>) -> Answer<wire::GetResponse> {
            let request = request.into_inner();
            let ids: Vec<_> = request.ids.into_iter().map(convert::id).collect();
            let vectors = convert::with_vectors(request.with_vectors);
            let ask = |collection: &Collection| {
                collection.shard.retrieve(&ids, Some(WithPayloadInterface::Bool(true)), Some(vectors)).map_err(internal)
            };
            let records = self.with(&request.collection_name, ask)?;
            let result = records.into_iter().map(convert::record).collect();
            Ok(Response::new(wire::GetResponse { result, ..wire::GetResponse::default() }))
        }

        async fn create_field_index(&self, request: Request<wire::CreateFieldIndexCollection>) -> Answer<wire::PointsOperationResponse> {
            let request = request.into_inner();
            let schema = match request.field_type() {
                wire::FieldType::Keyword => PayloadSchemaType::Keyword,
                wire::FieldType::Float => PayloadSchemaType::Float,
                other => return Err(Status::unimplemented(format!("{other:?}"))),
            };
            let field_name = request.field_name.parse().map_err(|()| Status::invalid_argument("field_name"))?;
            let create = CreateIndex { field_name, field_schema: Some(PayloadFieldSchema::FieldType(schema)) };
            let operation = UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(create));
            self.update(&request.collection_name, operation)
        }

        async fn scroll(&self, request: Request<wire::ScrollPoints>) -> Answer<wire::ScrollResponse> {
            let request = request.into_inner();
            let asked = ScrollRequest {
                offset: request.offset.map(convert::id),
                limit: request.limit.map(|limit| limit as usize),
                filter: request.filter.map(convert::filter),
                with_payload: Some(convert::with_payload(request.with_payload)),
                with_vector: convert::with_vectors(request.with_vectors),
                order_by: None,
            };
            let (records, next) = self.with(&request.collection_name, |collection| collection.shard.scroll(asked).map_err(internal))?;
            let result = records.into_iter().map(convert::record).collect();
            Ok(Response::new(wire::ScrollResponse { result, next_page_offset: next.map(convert::id_out), ..wire::ScrollResponse::default() }))
        }

        async fn count(&self, request: Request<wire::CountPoints>) -> Answer<wire::CountResponse> {
            let request = request.into_inner();
            let asked = CountRequest { filter: request.filter.map(convert::filter), exact: request.exact.unwrap_or(true) };
            let count = self.with(&request.collection_name, |collection| collection.shard.count(asked).map_err(internal))?;
            let result = Some(wire::CountResult { count: count as u64 });
            Ok(Response::new(wire::CountResponse { result, ..wire::CountResponse::default() }))
        }

        async fn query(&self, request: Request<wire::QueryPoints>) -> Answer<wire::QueryResponse> {
            let request = request.into_inner();
            let asked = SearchRequest {
                query: convert::query(request.query, request.using),
                filter: request.filter.map(convert::filter),
                params: None,
                limit: request.limit.unwrap_or(10) as usize,
                offset: 0,
                with_payload: Some(convert::with_payload(request.with_payload)),
                with_vector: Some(convert::with_vectors(request.with_vectors)),
                score_threshold: None,
            };
            let found = self.with(&request.collection_name, |collection| collection.shard.search(asked).map_err(internal))?;
            let result = found.into_iter().map(convert::scored).collect();
            Ok(Response::new(wire::QueryResponse { result, ..wire::QueryResponse::default() }))
        }
    }
    update_vectors: UpdatePointVectors -> PointsOperationResponse,
    delete_vectors: DeletePointVectors -> PointsOperationResponse,
    set_payload: SetPayloadPoints -> PointsOperationResponse,
    overwrite_payload: SetPayloadPoints -> PointsOperationResponse,
    delete_payload: DeletePayloadPoints -> PointsOperationResponse,
    clear_payload: ClearPayloadPoints -> PointsOperationResponse,
    delete_field_index: DeleteFieldIndexCollection -> PointsOperationResponse,
    create_vector_name: CreateVectorNameRequest -> PointsOperationResponse,
    delete_vector_name: DeleteVectorNameRequest -> PointsOperationResponse,
    search: SearchPoints -> SearchResponse,
    search_batch: SearchBatchPoints -> SearchBatchResponse,
    search_groups: SearchPointGroups -> SearchGroupsResponse,
    recommend: RecommendPoints -> RecommendResponse,
    recommend_batch: RecommendBatchPoints -> RecommendBatchResponse,
    recommend_groups: RecommendPointGroups -> RecommendGroupsResponse,
    discover: DiscoverPoints -> DiscoverResponse,
    discover_batch: DiscoverBatchPoints -> DiscoverBatchResponse,
    update_batch: UpdateBatchPoints -> UpdateBatchResponse,
    query_batch: QueryBatchPoints -> QueryBatchResponse,
    query_groups: QueryPointGroups -> QueryGroupsResponse,
    facet: FacetCounts -> FacetResponse,
    search_matrix_pairs: SearchMatrixPoints -> SearchMatrixPairsResponse,
    search_matrix_offsets: SearchMatrixPoints -> SearchMatrixOffsetsResponse,
}
