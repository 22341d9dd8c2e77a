//! The two faces of a service on the wire: [`Served`] puts a trait on it, [`Remote`] takes it off.

mod address;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use tonic::{Request, Response, Status, TimeoutExpired};

pub use address::{Address, Credential, Trust, channel, default_connect_timeout, seconds_to_wait, trusting};

use crate::{Code, Context, Error, EventStream, Result, context::deadline_passed};

/// Largest message either way. tonic's own 4 MB is less than one embedding batch; without a bound a peer decides.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Bytes that a peer may send on one connection before they are read. h2 counts 256 for each smaller frame, as each word of
/// a model is one, and closes a connection on which frames for more than half of this wait: one slow reader among many
/// streams must not cost the others theirs.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// The same, of one stream.
const STREAM_WINDOW: u32 = 512 << 10;

/// How much later than a provider's own limit the deadline is that it is told.
const GRACE: Duration = Duration::from_secs(1);

/// What tonic says of a message that is larger than its reader takes.
const TOO_LARGE: &str = "Error, decoded message length too large";

/// A service trait as a tonic server: `InferenceServer::new(Served(arc))`.
pub struct Served<S: ?Sized>(pub Arc<S>);

/// A tonic client as the service trait. Without a credential a peer is told who asks, and shown nothing but the context's own.
pub struct Remote<C>(pub C, pub(crate) Option<Credential>, pub(crate) Option<Duration>);

impl<C> Remote<C> {
    /// Shows this with every call.
    #[must_use]
    pub fn showing(self, credential: Credential) -> Self {
        Self(self.0, Some(credential), self.2)
    }

    /// Waits so long for an answer that comes whole, where its caller would wait for longer.
    #[must_use]
    pub fn limited(self, limit: Duration) -> Self {
        Self(self.0, self.1, Some(limit))
    }

    /// An answer that comes whole.
    pub(crate) async fn whole<T, F>(&self, cx: &Context, call: impl FnOnce(Context) -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let limit = self.2.filter(|limit| cx.deadline().is_none_or(|deadline| deadline > Instant::now() + *limit));
        let Some(limit) = limit else { return cx.within(call(cx.clone())).await };
        // The peer is told a later time, so that it is known whose limit it was.
        let call = call(cx.clone().with_timeout(limit + GRACE));
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(self.late(limit)))
    }

    fn late(&self, limit: Duration) -> Error {
        let id = self.1.as_ref().map_or_else(String::new, |credential| format!(" {:?}", credential.provider_id()));
        let message = format!("the provider{id} did not answer within {} s", limit.as_secs_f64());
        Error::new(Code::DeadlineExceeded, message).with_reason("upstream_timeout")
    }

    pub(crate) fn request<T>(&self, cx: &Context, message: T) -> Request<T> {
        match &self.1 {
            Some(credential) => credential.shown(cx).request(message),
            None => cx.request(message),
        }
    }

    /// A refused key is not the caller's fault, unless it was theirs.
    pub(crate) fn failed(&self, cx: &Context, status: Status) -> Error {
        let error = from_peer(status);
        match &self.1 {
            Some(credential) if error.code() == Code::Unauthenticated => credential.refused(cx, error),
            _ => error,
        }
    }
}

impl Context {
    /// A request that carries this context.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.write_metadata(request.metadata_mut());
        if let Some(deadline) = self.deadline() {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        request
    }
}

/// The context of an incoming call.
pub(crate) fn context<T>(request: &Request<T>) -> Result<Context, Status> {
    Ok(Context::from_request(request.metadata(), request.extensions())?)
}

/// Events on their way out: errors become statuses, and the deadline ends them.
pub(crate) fn outgoing<T: Send + 'static>(cx: &Context, events: EventStream<T>) -> BoxedEvents<T> {
    Box::pin(cx.until_deadline(events).map(|event| event.map_err(Status::from)))
}

pub type BoxedEvents<T> = std::pin::Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

/// Events on their way in. The peer may have been told of the deadline, and be stuck: whoever waits keeps it too.
pub(crate) fn incoming<T: Send + 'static>(cx: &Context, response: Response<tonic::Streaming<T>>) -> EventStream<T> {
    cx.until_deadline(Box::pin(response.into_inner().map(|event| event.map_err(from_peer))))
}

/// A client's stream as tonic wants it, without errors: a broken source ends the upload early, and the server refuses
/// what lacks its end. A type of its own, because the compiler cannot name a boxed stream's lifetime in async methods.
pub(crate) struct Upload<T>(pub(crate) EventStream<T>);

impl<T> futures::Stream for Upload<T> {
    type Item = T;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<T>> {
        self.0.as_mut().poll_next(cx).map(|message| message.and_then(Result::ok))
    }
}

/// What tonic says of a request that it cannot read. By gRPC's table that is INTERNAL, which here is a defect of the server; the
/// caller's message is at fault.
pub fn from_form(status: &Status) -> Error {
    let code = match status.code() {
        tonic::Code::Internal | tonic::Code::Unknown | tonic::Code::DataLoss => Code::InvalidArgument,
        other => Code::from_grpc(other),
    };
    Error::new(code, format!("the request cannot be read: {}", status.message())).with_reason("malformed_request")
}

/// A peer's status, told apart from a peer that is not there.
pub(crate) fn from_peer(status: Status) -> Error {
    use std::error::Error as _;
    // tonic's timers, here and there, say CANCELLED where gRPC's word is DEADLINE_EXCEEDED.
    if status.code() == tonic::Code::Cancelled && status.message() == TimeoutExpired(()).to_string() {
        return deadline_passed();
    }
    // By gRPC's code the caller would have sent too much. No request is larger than what an answer may be, so it is the answer.
    if status.message().starts_with(TOO_LARGE) && status.message().ends_with(&format!("the limit is: {MAX_MESSAGE_BYTES} bytes")) {
        let message = format!("the provider's answer is larger than {} MiB", MAX_MESSAGE_BYTES >> 20);
        return Error::unavailable(message).with_reason("upstream_malformed");
    }
    let error = Error::from(status.clone());
    // hyper's word for a connection that ended before the request went out, as one without TLS does where TLS is spoken.
    let unsent = status.code() == tonic::Code::Cancelled && status.message().starts_with("operation was canceled");
    match status.source() {
        Some(source) if unsent || matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown) => {
            Error::unavailable("the provider cannot be reached").with_reason("upstream_unreachable").with_source(whole(source))
        }
        // Made on this side as well, and perhaps only after the request was sent.
        Some(source) => error.with_source(whole(source)),
        None => error,
    }
}

/// An error with what is behind it: tonic's own says no more than "transport error".
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Writes both faces of a service trait, `Served<dyn Trait>` as its tonic server and `Remote<Client>` as the trait, and the
/// trait behind a guard, `Guarded<dyn Trait>`.
///
/// Method kinds: `unary`, `stream` (the server streams), `upload` (the client streams).
macro_rules! grpc_service {
    ($service:ident, $server:path, $client:ty {
        $(unary $unary:ident($unary_in:ty) -> $unary_out:ty;)*
        $(stream $stream:ident($stream_in:ty) -> $stream_out:ty as $assoc:ident;)*
        $(upload $upload:ident($upload_in:ty) -> $upload_out:ty;)*
    }) => {
        #[async_trait::async_trait]
        impl $server for $crate::grpc::Served<dyn $service> {
            $(async fn $unary(&self, request: tonic::Request<$unary_in>) -> Result<tonic::Response<$unary_out>, tonic::Status> {
                let cx = $crate::grpc::context(&request)?;
                let response = cx.within(self.0.$unary(&cx, request.into_inner())).await?;
                Ok(tonic::Response::new(response))
            })*
            $(type $assoc = $crate::grpc::BoxedEvents<$stream_out>;

            async fn $stream(&self, request: tonic::Request<$stream_in>) -> Result<tonic::Response<Self::$assoc>, tonic::Status> {
                let cx = $crate::grpc::context(&request)?;
                let events = cx.within(self.0.$stream(&cx, request.into_inner())).await?;
                Ok(tonic::Response::new($crate::grpc::outgoing(&cx, events)))
            })*
            $(async fn $upload(
                &self,
                request: tonic::Request<tonic::Streaming<$upload_in>>,
            ) -> Result<tonic::Response<$upload_out>, tonic::Status> {
                use futures::StreamExt as _;
                let cx = $crate::grpc::context(&request)?;
                let messages = request.into_inner().map(|message| message.map_err(|status| $crate::grpc::from_form(&status)));
                let response = cx.within(self.0.$upload(&cx, Box::pin(messages))).await?;
                Ok(tonic::Response::new(response))
            })*
        }

        #[async_trait::async_trait]
        impl $service for $crate::grpc::Remote<$client> {
            $(async fn $unary(&self, cx: &$crate::Context, request: $unary_in) -> $crate::Result<$unary_out> {
                let call = move |cx: $crate::Context| async move {
                    self.0.clone().$unary(self.request(&cx, request)).await.map_err(|status| self.failed(&cx, status))
                };
                Ok(self.whole(cx, call).await?.into_inner())
            })*
            $(async fn $stream(&self, cx: &$crate::Context, request: $stream_in) -> $crate::Result<$crate::EventStream<$stream_out>> {
                let call = async { self.0.clone().$stream(self.request(cx, request)).await.map_err(|status| self.failed(cx, status)) };
                Ok($crate::grpc::incoming(cx, cx.within(call).await?))
            })*
            $(async fn $upload(&self, cx: &$crate::Context, messages: $crate::EventStream<$upload_in>) -> $crate::Result<$upload_out> {
                let request = self.request(cx, $crate::grpc::Upload(messages));
                let call = async { self.0.clone().$upload(request).await.map_err(|status| self.failed(cx, status)) };
                Ok(cx.within(call).await?.into_inner())
            })*
        }

        #[async_trait::async_trait]
        impl $service for $crate::guard::Guarded<dyn $service> {
            $(async fn $unary(&self, cx: &$crate::Context, request: $unary_in) -> $crate::Result<$unary_out> {
                const ACTION: &str = concat!(stringify!($service), ".", stringify!($unary));
                self.guard.check(cx, ACTION, &request).await?;
                let mut answer = self.inner.$unary(cx, request).await?;
                self.guard.answered(cx, ACTION, &mut answer).await?;
                Ok(answer)
            })*
            $(async fn $stream(&self, cx: &$crate::Context, request: $stream_in) -> $crate::Result<$crate::EventStream<$stream_out>> {
                self.guard.check(cx, concat!(stringify!($service), ".", stringify!($stream)), &request).await?;
                self.inner.$stream(cx, request).await
            })*
            $(async fn $upload(&self, cx: &$crate::Context, messages: $crate::EventStream<$upload_in>) -> $crate::Result<$upload_out> {
                self.guard.check(cx, concat!(stringify!($service), ".", stringify!($upload)), &()).await?;
                self.inner.$upload(cx, messages).await
            })*
        }

        impl $crate::grpc::Remote<$client> {
            /// A client of this service over `channel`, with this project's message limits.
            pub fn new(channel: tonic::transport::Channel) -> Self {
                type Client = $client;
                let limit = $crate::grpc::MAX_MESSAGE_BYTES;
                Self(Client::new(channel).max_decoding_message_size(limit).max_encoding_message_size(limit), None, None)
            }
        }
    };
}
pub(crate) use grpc_service;

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{ListShieldsRequest, safety_client::SafetyClient};
    use tonic::transport::Channel;

    use super::*;
    use crate::Safety;

    #[test]
    fn a_timer_that_ran_out_is_a_deadline() {
        let error = from_peer(Status::from_error(Box::new(TimeoutExpired(()))));
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
        assert_eq!(from_peer(Status::cancelled("by the peer")).code(), Code::Cancelled);
    }

    /// Who sets no deadline does not wait for ever.
    #[tokio::test]
    async fn a_peer_that_never_answers_is_given_up_and_named() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new(format!("http://{}", silent.local_addr().unwrap()));
        let remote = Remote::<SafetyClient<Channel>>::new(address.channel().unwrap()).showing(address.credential("far"));
        let remote = remote.limited(Duration::from_millis(50));
        let error = remote.list_shields(&Context::default(), ListShieldsRequest::default()).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, Some("upstream_timeout")));
        assert!(error.message().contains("\"far\""), "{error}");
    }

    /// What a caller sent that was too large is theirs to mend; what a provider answered is not.
    #[test]
    fn an_answer_that_is_too_large_is_not_the_callers_fault() {
        let told =
            |limit: usize| from_peer(Status::out_of_range(format!("{TOO_LARGE}: found 73400330 bytes, the limit is: {limit} bytes")));
        let error = told(MAX_MESSAGE_BYTES);
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_malformed")));
        assert!(error.message().contains("64 MiB"), "{error}");
        assert_eq!(told(4 << 20).code(), Code::TooLarge);
    }

    #[test]
    fn a_peer_that_cannot_be_reached_is_told_with_the_last_cause() {
        use std::error::Error as _;
        let cause = Error::internal("transport error").with_source("invalid peer certificate: UnknownIssuer");
        let error = from_peer(Status::from_error(Box::new(cause)));
        assert_eq!(error.reason(), Some("upstream_unreachable"));
        assert_eq!(error.source().unwrap().to_string(), "transport error: invalid peer certificate: UnknownIssuer");
        // A peer that tells it of another is there.
        let told =
            from_peer(Status::from(Error::unavailable("provider \"far\"").with_reason("upstream_unreachable").with_source("refused")));
        assert_eq!((told.message(), told.source().is_none()), ("provider \"far\"", true));
    }
}
