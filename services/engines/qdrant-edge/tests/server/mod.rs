//! A Qdrant server for tests: the gRPC API that the client ships, over the embedded engine, on a real socket.
//!
//! It serves what `remote::qdrant` calls and refuses the rest. Its words become vectors by the engine's own BM25, as a
//! server's do. It keeps nothing over its end.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex},
};

use qdrant_client::qdrant::{
    collections_server::{Collections, CollectionsServer},
    points_server::{Points, PointsServer},
    *,
};
use qdrant_edge::{
    CountRequest, CreateIndex, EdgeConfig, EdgeShard, EdgeSparseVectorParams, EdgeVectorParams, FieldIndexOperations, NamedQuery,
    OperationError, PayloadFieldSchema, PayloadSchemaType, PointInsertOperations, PointOperations, QueryEnum, QueryRequest, ScoringQuery,
    ScrollRequest, UpdateOperation, WithPayloadInterface, WithVector,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

mod convert;

/// Its address, and what it has; it ends with the runtime.
pub struct Server {
    pub url: String,
    pub key: &'static str,
}

struct Collection {
    asked: CreateCollection,
    shard: EdgeShard,
    _folder: TempDir,
}

#[derive(Clone, Default)]
struct State(Arc<Mutex<HashMap<String, Arc<Collection>>>>);

/// Serves on a free port; refuses who does not bring the key.
pub async fn serve() -> Server {
    let key = "a key for tests";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let state = State::default();
    let check = move |request: Request<()>| match request.metadata().get("api-key") {
        Some(given) if given == key => Ok(request),
        _ => Err(Status::unauthenticated("Must provide an API key or an Authorization bearer token")),
    };
    let server = tonic::transport::Server::builder()
        .add_service(PointsServer::with_interceptor(state.clone(), check))
        .add_service(CollectionsServer::with_interceptor(state, check))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    Server { url, key }
}

impl State {
    fn find(&self, name: &str) -> Result<Arc<Collection>, Status> {
        let there = self.0.lock().unwrap().get(name).cloned();
        there.ok_or_else(|| Status::not_found(format!("Not found: Collection `{name}` doesn't exist!")))
    }

    fn update(&self, collection: &str, operation: PointOperations) -> Result<Response<PointsOperationResponse>, Status> {
        self.find(collection)?.shard.update(UpdateOperation::PointOperation(operation)).map_err(failed)?;
        Ok(Response::new(PointsOperationResponse::default()))
    }
}

fn failed(error: OperationError) -> Status {
    match error {
        OperationError::WrongVectorDimension { .. } | OperationError::ValidationError { .. } => Status::invalid_argument(error.to_string()),
        other => Status::internal(other.to_string()),
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// Methods that are refused, as `async_trait` would write them.
macro_rules! refused {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        $(fn $name<'life, 'async_trait>(&'life self, _: Request<$request>) -> Answer<'async_trait, $response>
        where
            'life: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
        })*
    };
}

/// The same of one that is served, by a function.
macro_rules! served {
    ($($name:ident($request:ty) -> $response:ty = $function:expr;)*) => {
        $(fn $name<'life, 'async_trait>(&'life self, request: Request<$request>) -> Answer<'async_trait, $response>
        where
            'life: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async move { $function(self, request.into_inner()) })
        })*
    };
}

impl Collections for State {
    served! {
        create(CreateCollection) -> CollectionOperationResponse = create;
        get(GetCollectionInfoRequest) -> GetCollectionInfoResponse = info;
        delete(DeleteCollection) -> CollectionOperationResponse = |state: &State, request: DeleteCollection| {
            state.0.lock().unwrap().remove(&request.collection_name);
            Ok(Response::new(CollectionOperationResponse { result: true, ..Default::default() }))
        };
        collection_exists(CollectionExistsRequest) -> CollectionExistsResponse = |state: &State, request: CollectionExistsRequest| {
            let result = Some(CollectionExists { exists: state.find(&request.collection_name).is_ok() });
            Ok(Response::new(CollectionExistsResponse { result, ..Default::default() }))
        };
    }

    refused! {
        list(ListCollectionsRequest) -> ListCollectionsResponse;
        update(UpdateCollection) -> CollectionOperationResponse;
        update_aliases(ChangeAliases) -> CollectionOperationResponse;
        list_collection_aliases(ListCollectionAliasesRequest) -> ListAliasesResponse;
        list_aliases(ListAliasesRequest) -> ListAliasesResponse;
        collection_cluster_info(CollectionClusterInfoRequest) -> CollectionClusterInfoResponse;
        update_collection_cluster_setup(UpdateCollectionClusterSetupRequest) -> UpdateCollectionClusterSetupResponse;
        create_shard_key(CreateShardKeyRequest) -> CreateShardKeyResponse;
        delete_shard_key(DeleteShardKeyRequest) -> DeleteShardKeyResponse;
        list_shard_keys(ListShardKeysRequest) -> ListShardKeysResponse;
    }
}

impl Points for State {
    served! {
        upsert(UpsertPoints) -> PointsOperationResponse = |state: &State, request: UpsertPoints| {
            assert_eq!(request.wait, Some(true), "a write that is not waited for is not acknowledged");
            let points = request.points.into_iter().map(convert::point).collect::<Result<_, _>>()?;
            state.update(&request.collection_name, PointOperations::UpsertPoints(PointInsertOperations::PointsList(points)))
        };
        delete(DeletePoints) -> PointsOperationResponse = |state: &State, request: DeletePoints| {
            assert_eq!(request.wait, Some(true), "a deletion that is not waited for is not acknowledged");
            let Some(points_selector::PointsSelectorOneOf::Filter(filter)) = request.points.and_then(|points| points.points_selector_one_of) else {
                return Err(Status::unimplemented("deleting by id"));
            };
            state.update(&request.collection_name, PointOperations::DeletePointsByFilter(convert::filter(Some(filter))?))
        };
        create_field_index(CreateFieldIndexCollection) -> PointsOperationResponse = index;
        get(GetPoints) -> GetResponse = get;
        scroll(ScrollPoints) -> ScrollResponse = scroll;
        count(CountPoints) -> CountResponse = |state: &State, request: CountPoints| {
            let filter = Some(convert::filter(request.filter)?);
            let count = state.find(&request.collection_name)?.shard.count(CountRequest { filter, exact: true }).map_err(failed)?;
            Ok(Response::new(CountResponse { result: Some(CountResult { count: count as u64 }), ..Default::default() }))
        };
        query(QueryPoints) -> QueryResponse = query;
    }

    refused! {
        update_vectors(UpdatePointVectors) -> PointsOperationResponse;
        delete_vectors(DeletePointVectors) -> PointsOperationResponse;
        set_payload(SetPayloadPoints) -> PointsOperationResponse;
        overwrite_payload(SetPayloadPoints) -> PointsOperationResponse;
        delete_payload(DeletePayloadPoints) -> PointsOperationResponse;
        clear_payload(ClearPayloadPoints) -> PointsOperationResponse;
        delete_field_index(DeleteFieldIndexCollection) -> PointsOperationResponse;
        create_vector_name(CreateVectorNameRequest) -> PointsOperationResponse;
        delete_vector_name(DeleteVectorNameRequest) -> PointsOperationResponse;
        search(SearchPoints) -> SearchResponse;
        search_batch(SearchBatchPoints) -> SearchBatchResponse;
        search_groups(SearchPointGroups) -> SearchGroupsResponse;
        recommend(RecommendPoints) -> RecommendResponse;
        recommend_batch(RecommendBatchPoints) -> RecommendBatchResponse;
        recommend_groups(RecommendPointGroups) -> RecommendGroupsResponse;
        discover(DiscoverPoints) -> DiscoverResponse;
        discover_batch(DiscoverBatchPoints) -> DiscoverBatchResponse;
        update_batch(UpdateBatchPoints) -> UpdateBatchResponse;
        query_batch(QueryBatchPoints) -> QueryBatchResponse;
        query_groups(QueryPointGroups) -> QueryGroupsResponse;
        facet(FacetCounts) -> FacetResponse;
        search_matrix_pairs(SearchMatrixPoints) -> SearchMatrixPairsResponse;
        search_matrix_offsets(SearchMatrixPoints) -> SearchMatrixOffsetsResponse;
    }
}

fn create(state: &State, request: CreateCollection) -> Result<Response<CollectionOperationResponse>, Status> {
    let mut config = EdgeConfig::builder();
    if let Some(vectors_config::Config::ParamsMap(map)) = request.vectors_config.clone().and_then(|vectors| vectors.config) {
        for (name, params) in map.map {
            assert_eq!(params.distance(), Distance::Cosine);
            config = config.vector(name, EdgeVectorParams::builder(params.size as usize, qdrant_edge::Distance::Cosine).build());
        }
    }
    for (name, params) in request.sparse_vectors_config.clone().unwrap_or_default().map {
        assert_eq!(params.modifier(), Modifier::Idf);
        config = config.sparse_vector(name, EdgeSparseVectorParams::builder().modifier(qdrant_edge::Modifier::Idf).build());
    }
    let mut collections = state.0.lock().unwrap();
    if collections.contains_key(&request.collection_name) {
        return Err(Status::already_exists(format!("Collection `{}` already exists!", request.collection_name)));
    }
    let folder = tempfile::tempdir().unwrap();
    let shard = EdgeShard::new(folder.path(), config.build()).map_err(failed)?;
    collections.insert(request.collection_name.clone(), Arc::new(Collection { asked: request, shard, _folder: folder }));
    Ok(Response::new(CollectionOperationResponse { result: true, ..Default::default() }))
}

fn info(state: &State, request: GetCollectionInfoRequest) -> Result<Response<GetCollectionInfoResponse>, Status> {
    let collection = state.find(&request.collection_name)?;
    let info = collection.shard.info();
    let CreateCollection { vectors_config, sparse_vectors_config, .. } = collection.asked.clone();
    let params = CollectionParams { vectors_config, sparse_vectors_config, ..Default::default() };
    let result = CollectionInfo {
        config: Some(CollectionConfig { params: Some(params), ..Default::default() }),
        points_count: Some(info.points_count as u64),
        indexed_vectors_count: Some(info.indexed_vectors_count as u64),
        payload_schema: info.payload_schema.keys().map(|key| (key.to_string(), PayloadSchemaInfo::default())).collect(),
        ..Default::default()
    };
    Ok(Response::new(GetCollectionInfoResponse { result: Some(result), ..Default::default() }))
}

fn index(state: &State, request: CreateFieldIndexCollection) -> Result<Response<PointsOperationResponse>, Status> {
    let schema = match request.field_type() {
        FieldType::Keyword => PayloadSchemaType::Keyword,
        FieldType::Float => PayloadSchemaType::Float,
        FieldType::Bool => PayloadSchemaType::Bool,
        other => return Err(Status::unimplemented(format!("an index of type {other:?}"))),
    };
    let field_name = request.field_name.parse().map_err(|()| Status::invalid_argument("no path"))?;
    let create = CreateIndex { field_name, field_schema: Some(PayloadFieldSchema::FieldType(schema)) };
    let operation = UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(create));
    state.find(&request.collection_name)?.shard.update(operation).map_err(failed)?;
    Ok(Response::new(PointsOperationResponse::default()))
}

fn get(state: &State, request: GetPoints) -> Result<Response<GetResponse>, Status> {
    let ids = request.ids.into_iter().map(|id| convert::id(Some(id))).collect::<Result<Vec<_>, _>>()?;
    let with_vectors = convert::vectors_wanted(request.with_vectors);
    let found = state.find(&request.collection_name)?.shard.retrieve(&ids, Some(WithPayloadInterface::Bool(true)), Some(with_vectors));
    let result = found.map_err(failed)?.into_iter().map(convert::record).collect();
    Ok(Response::new(GetResponse { result, ..Default::default() }))
}

fn scroll(state: &State, request: ScrollPoints) -> Result<Response<ScrollResponse>, Status> {
    let scroll = ScrollRequest {
        offset: request.offset.map(|offset| convert::id(Some(offset))).transpose()?,
        // Smaller than what is asked for, so that pages are turned.
        limit: Some(request.limit.unwrap_or(10).min(7) as usize),
        filter: Some(convert::filter(request.filter)?),
        with_payload: Some(WithPayloadInterface::Bool(true)),
        with_vector: WithVector::Bool(false),
        order_by: None,
    };
    let (found, next) = state.find(&request.collection_name)?.shard.scroll(scroll).map_err(failed)?;
    let (result, next_page_offset) = (found.into_iter().map(convert::record).collect(), next.map(convert::id_back));
    Ok(Response::new(ScrollResponse { result, next_page_offset, ..Default::default() }))
}

fn query(state: &State, request: QueryPoints) -> Result<Response<QueryResponse>, Status> {
    let Some(query::Variant::Nearest(nearest)) = request.query.and_then(|query| query.variant) else {
        return Err(Status::unimplemented("a query that is not for the nearest"));
    };
    let Some(vector) = convert::searched(nearest)? else {
        return Ok(Response::new(QueryResponse::default()));
    };
    let nearest = NamedQuery { query: vector, using: request.using };
    let query = QueryRequest {
        prefetches: Vec::new(),
        query: Some(ScoringQuery::Vector(QueryEnum::Nearest(nearest))),
        filter: Some(convert::filter(request.filter)?),
        score_threshold: None,
        limit: request.limit.unwrap_or(10) as usize,
        offset: 0,
        params: None,
        with_vector: WithVector::Bool(false),
        with_payload: WithPayloadInterface::Bool(true),
    };
    let found = state.find(&request.collection_name)?.shard.query(query).map_err(failed)?;
    let result = found.into_iter().map(convert::scored).collect();
    Ok(Response::new(QueryResponse { result, ..Default::default() }))
}
