//! The body of a response.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use objcg::{InMemcg, Memcg};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of a response: polled and dropped in the request's group. Once the group is killed it ends with the error
    /// [`OomKilled`](objcg::OomKilled), which ends the connection or the stream: the status is sent by then.
    pub struct MemcgBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        Outside { #[pin] body: B },
        Inside { #[pin] body: InMemcg<B> },
        Answer { bytes: Option<Bytes> },
    }
}

impl<B> MemcgBody<B> {
    pub(crate) fn outside(body: B) -> MemcgBody<B> {
        MemcgBody { kind: Kind::Outside { body } }
    }

    pub(crate) fn inside(body: B, memcg: &Memcg) -> MemcgBody<B> {
        MemcgBody { kind: Kind::Inside { body: InMemcg::new(body, memcg) } }
    }

    pub(crate) fn answer(bytes: Bytes) -> MemcgBody<B> {
        MemcgBody { kind: Kind::Answer { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()) } }
    }
}

impl<B> Body for MemcgBody<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.project().kind.project() {
            KindProjection::Outside { body } => body.poll_frame(context).map_err(Into::into),
            KindProjection::Inside { mut body } => {
                Poll::Ready(match ready!(body.as_mut().poll_with(context, B::poll_frame)) {
                    Some(Ok(Some(frame))) => Some(frame.map_err(Into::into)),
                    Some(Ok(None)) => {
                        body.end();
                        None
                    }
                    Some(Err(killed)) => Some(Err(killed.into())),
                    None => None,
                })
            }
            KindProjection::Answer { bytes } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Outside { body } => body.is_end_stream(),
            Kind::Inside { body } => body.get_ref().is_none_or(B::is_end_stream),
            Kind::Answer { bytes } => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Outside { body } => body.size_hint(),
            Kind::Inside { body } => body.get_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint),
            Kind::Answer { bytes } => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}
