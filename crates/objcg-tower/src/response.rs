//! The future of a response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use objcg::{InMemcg, Memcg};
use pin_project_lite::pin_project;

use crate::answer::{Answers, Refusal};
use crate::body::MemcgBody;

pin_project! {
    /// The future of a [`MemcgService`](crate::MemcgService): the inner service's, in the request's group.
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Outside { #[pin] inner: F },
        Inside { #[pin] inner: InMemcg<F>, request: RequestInGroup },
        Answered { response: Option<Response<Bytes>> },
    }
}

/// What of a request is needed to refuse it.
struct RequestInGroup {
    answers: Arc<Answers>,
    is_grpc: bool,
}

impl<F> ResponseFuture<F> {
    pub(crate) fn outside(inner: F) -> ResponseFuture<F> {
        ResponseFuture { state: State::Outside { inner } }
    }

    pub(crate) fn inside(inner: F, memcg: &Memcg, answers: &Arc<Answers>, is_grpc: bool) -> ResponseFuture<F> {
        let request = RequestInGroup { answers: Arc::clone(answers), is_grpc };
        let inner = InMemcg::new(inner, memcg).hold_at_most(answers.patience);
        ResponseFuture { state: State::Inside { inner, request } }
    }

    pub(crate) fn killed(memcg: &Memcg, answers: &Answers, is_grpc: bool) -> ResponseFuture<F> {
        let response = Some((answers.killed)(Refusal { memcg, is_grpc }));
        ResponseFuture { state: State::Answered { response } }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<MemcgBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Outside { inner } => {
                let response = ready!(inner.poll(context));
                Poll::Ready(response.map(|response| response.map(MemcgBody::outside)))
            }
            StateProjection::Inside { inner, request } => request.poll(inner, context),
            StateProjection::Answered { response } => {
                let response = response.take().expect("a future is not polled after its end");
                Poll::Ready(Ok(response.map(MemcgBody::answer)))
            }
        }
    }
}

impl RequestInGroup {
    fn poll<F, R, E>(
        &self,
        mut inner: Pin<&mut InMemcg<F>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Response<MemcgBody<R>>, E>>
    where
        F: Future<Output = Result<Response<R>, E>>,
    {
        let is_grpc = self.is_grpc;
        let result = match inner.as_mut().poll(context) {
            Poll::Ready(Ok(result)) => result,
            Poll::Ready(Err(_)) => return self.answer_killed(inner.memcg()),
            Poll::Pending if inner.held_for() < self.answers.patience => return Poll::Pending,
            Poll::Pending => {
                inner.as_mut().end();
                let memcg = inner.memcg();
                let response = (self.answers.throttled)(Refusal { memcg, is_grpc });
                return Poll::Ready(Ok(response.map(MemcgBody::answer)));
            }
        };
        let memcg = inner.memcg();
        if memcg.is_oom_killed() {
            // By this last poll. Its body would end without a word.
            memcg.scope(|| drop(result));
            return self.answer_killed(memcg);
        }
        Poll::Ready(result.map(|response| response.map(|body| MemcgBody::inside(body, memcg))))
    }

    fn answer_killed<R, E>(&self, memcg: &Memcg) -> Poll<Result<Response<MemcgBody<R>>, E>> {
        let response = (self.answers.killed)(Refusal { memcg, is_grpc: self.is_grpc });
        Poll::Ready(Ok(response.map(MemcgBody::answer)))
    }
}
