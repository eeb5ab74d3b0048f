//! gRPC calls of a tonic server in groups, over a connection on the loopback interface.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request as HttpRequest, Response as HttpResponse};
use objcg::{Memcg, Objcg};
use objcg_tower::MemcgLayer;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

#[path = "../../objcg/tests/support/groups.rs"]
mod groups;
use groups::{assert_empty, group};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

#[derive(Clone, PartialEq, prost::Message)]
struct Rows {
    #[prost(uint64, tag = "1")]
    nr_bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(string, tag = "1")]
    group: String,
}

/// Holds so many bytes, chunk by chunk, and says in which group.
#[derive(Clone)]
struct Hold;

type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl UnaryService<Rows> for Hold {
    type Response = Answer;
    type Future = BoxFuture<Response<Answer>, Status>;

    fn call(&mut self, request: Request<Rows>) -> Self::Future {
        Box::pin(async move {
            let mut held = Vec::new();
            for _ in 0..request.get_ref().nr_bytes / 10_000 {
                held.push(vec![0u8; 10_000]);
                tokio::task::yield_now().await;
            }
            Ok(Response::new(Answer { group: Memcg::current().name() }))
        })
    }
}

/// What a generated server is.
impl Service<HttpRequest<Body>> for Hold {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<HttpResponse<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Answer, Rows>::default());
            Ok(grpc.unary(Hold, request).await)
        })
    }
}

impl NamedService for Hold {
    const NAME: &'static str = "objcg.Hold";
}

async fn hold(address: SocketAddr, tenant: &str, nr_bytes: u64) -> Result<String, Status> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = Client::new(channel);
    client.ready().await.unwrap();
    let mut request = Request::new(Rows { nr_bytes });
    request.metadata_mut().insert("x-tenant", tenant.parse().unwrap());
    let path = PathAndQuery::from_static("/objcg.Hold/Hold");
    let response = client.unary(request, path, ProstCodec::<Rows, Answer>::default()).await?;
    Ok(response.into_inner().group)
}

/// Runs `work` with a server whose calls are in children of the group; everything is gone afterwards.
fn with_server<W: Future<Output = ()>>(server: &Memcg, work: impl FnOnce(SocketAddr) -> W) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let parent = server.clone();
    runtime.block_on(async {
        let layer = MemcgLayer::new(move |request| parent.child(request.headers.get("x-tenant")?.to_str().ok()?));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Server::builder().layer(layer).add_service(Hold).serve_with_incoming_shutdown(
            TcpIncoming::from(listener),
            async {
                stopped.await.unwrap();
            },
        );
        let serving = tokio::spawn(serving);
        work(address).await;
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn a_call_is_in_its_group_and_a_runaway_is_ended_alone() {
    let server = group("server");
    let (good, bad) = (server.create("good").unwrap(), server.create("bad").unwrap());
    for tenant in [&good, &bad] {
        tenant.set_max(Some(1 << 20)).unwrap();
    }
    with_server(&server, async |address| {
        assert_eq!(hold(address, "good", 100_000).await.unwrap(), "good");
        assert!(good.peak() >= 100_000);
        let (refused, served) = tokio::join!(hold(address, "bad", 1 << 30), hold(address, "good", 500_000));
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("out of memory"), "{status:?}");
        assert_eq!(served.unwrap(), "good");
        // Killed: at once, and without a call.
        assert_eq!(hold(address, "bad", 0).await.unwrap_err().code(), Code::ResourceExhausted);
        assert_eq!(hold(address, "nobody", 0).await.unwrap(), "");
    });
    assert_empty(&good);
    assert_empty(&bad);
    assert_eq!(bad.events().oom_kill, 1);
}

#[test]
fn a_call_that_is_held_back_for_too_long_is_unavailable() {
    let server = group("short");
    let tenant = server.create("tenant").unwrap();
    tenant.set_high(Some(100_000)).unwrap();
    let ballast = tenant.scope(|| vec![0u8; 1_000_000]);
    with_server(&server, async |address| {
        let status = hold(address, "tenant", 100_000).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
    });
    drop(ballast);
    assert_empty(&tenant);
}
