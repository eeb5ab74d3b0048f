//! The layer and the service that it makes.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use objcg::Memcg;
use tower_layer::Layer;
use tower_service::Service;

use crate::answer::{Answers, Refusal, is_grpc};
use crate::body::MemcgBody;
use crate::response::ResponseFuture;

/// Puts each request into a group. See the crate's page for an example.
#[derive(Clone)]
pub struct MemcgLayer<G> {
    group_of: G,
    answers: Arc<Answers>,
}

/// A service inside of a [`MemcgLayer`].
#[derive(Clone)]
pub struct MemcgService<S, G> {
    inner: S,
    group_of: G,
    answers: Arc<Answers>,
}

impl<G> MemcgLayer<G>
where
    G: Fn(&Parts) -> Option<Memcg> + Clone,
{
    /// `group_of` gives the group of a request; without one it runs in the group that is current. Called once a request, outside
    /// of the group.
    pub fn new(group_of: G) -> MemcgLayer<G> {
        MemcgLayer { group_of, answers: Arc::default() }
    }

    /// How long a request is held back in all, while its group is over its `high`, before it is dropped and answered as throttled.
    /// One second unless it is said; not counted once the response has begun.
    #[must_use]
    pub fn patience(self, patience: Duration) -> MemcgLayer<G> {
        self.with(|answers| answers.patience = patience)
    }

    /// What a request is answered that was held back beyond the [`patience`](MemcgLayer::patience): by default 503 with
    /// `retry-after`, or the status `UNAVAILABLE` of gRPC. `answer` is called outside of the group.
    #[must_use]
    pub fn on_throttled(
        self,
        answer: impl Fn(Refusal<'_>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> MemcgLayer<G> {
        self.with(|answers| answers.throttled = Arc::new(answer))
    }

    /// What a request is answered whose group is or was killed: by default 507, or the status `RESOURCE_EXHAUSTED` of gRPC.
    /// `answer` is called outside of the group.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use http::{Response, StatusCode};
    /// use objcg_tower::MemcgLayer;
    ///
    /// let layer = MemcgLayer::new(|_| None).on_killed(|refusal| {
    ///     let mut response = Response::new(format!("{} used all of its memory", refusal.memcg.name()).into());
    ///     *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    ///     response
    /// });
    /// # drop(layer);
    /// ```
    #[must_use]
    pub fn on_killed(self, answer: impl Fn(Refusal<'_>) -> Response<Bytes> + Send + Sync + 'static) -> MemcgLayer<G> {
        self.with(|answers| answers.killed = Arc::new(answer))
    }

    fn with(mut self, change: impl FnOnce(&mut Answers)) -> MemcgLayer<G> {
        change(Arc::make_mut(&mut self.answers));
        self
    }
}

impl<S, G: Clone> Layer<S> for MemcgLayer<G> {
    type Service = MemcgService<S, G>;

    fn layer(&self, inner: S) -> MemcgService<S, G> {
        MemcgService { inner, group_of: self.group_of.clone(), answers: Arc::clone(&self.answers) }
    }
}

impl<S, G, B, R> Service<Request<B>> for MemcgService<S, G>
where
    S: Service<Request<B>, Response = Response<R>>,
    G: Fn(&Parts) -> Option<Memcg>,
    R: Body<Data = Bytes>,
{
    type Response = Response<MemcgBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let group = (self.group_of)(&parts);
        let is_grpc = is_grpc(&parts);
        let request = Request::from_parts(parts, body);
        let Some(memcg) = group else { return ResponseFuture::outside(self.inner.call(request)) };
        if memcg.is_oom_killed() {
            return ResponseFuture::killed(&memcg, &self.answers, is_grpc);
        }
        let inner = memcg.scope(|| self.inner.call(request));
        ResponseFuture::inside(inner, &memcg, &self.answers, is_grpc)
    }
}

impl<G> fmt::Debug for MemcgLayer<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcgLayer").field("answers", &self.answers).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, G> fmt::Debug for MemcgService<S, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcgService")
            .field("inner", &self.inner)
            .field("answers", &self.answers)
            .finish_non_exhaustive()
    }
}
