//! What a request gets that is refused: by default what its protocol has for it, or what the user says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use objcg::Memcg;

/// How long a request is held back in all before it is answered, unless it is said.
const PATIENCE: Duration = Duration::from_secs(1);

const GRPC: &str = "application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// `RESOURCE_EXHAUSTED` and `UNAVAILABLE`.
const GRPC_KILLED: HeaderValue = HeaderValue::from_static("8");
const GRPC_THROTTLED: HeaderValue = HeaderValue::from_static("14");

/// A request that is not served: what a function that answers is told.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Refusal<'a> {
    /// The request's group.
    pub memcg: &'a Memcg,
    /// Whether the request is one of gRPC, whose errors are a header in a response of status 200.
    pub is_grpc: bool,
}

type Answer = dyn Fn(Refusal<'_>) -> Response<Bytes> + Send + Sync;

#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) patience: Duration,
    pub(crate) killed: Arc<Answer>,
    pub(crate) throttled: Arc<Answer>,
}

impl Default for Answers {
    fn default() -> Answers {
        Answers { patience: PATIENCE, killed: Arc::new(killed), throttled: Arc::new(throttled) }
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("patience", &self.patience).finish_non_exhaustive()
    }
}

pub(crate) fn is_grpc(request: &Parts) -> bool {
    request.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()))
}

fn killed(refusal: Refusal<'_>) -> Response<Bytes> {
    const WHY: &str = "out of memory: the request's group was ended";
    if refusal.is_grpc {
        return grpc(GRPC_KILLED, WHY);
    }
    plain(StatusCode::INSUFFICIENT_STORAGE, WHY)
}

fn throttled(refusal: Refusal<'_>) -> Response<Bytes> {
    const WHY: &str = "the request's group is short of memory";
    if refusal.is_grpc {
        return grpc(GRPC_THROTTLED, WHY);
    }
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, WHY);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn plain(status: StatusCode, why: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(why.as_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn grpc(status: HeaderValue, why: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert(GRPC_STATUS, status);
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(why));
    response
}
