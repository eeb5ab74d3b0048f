//! Requests of an axum server in groups: charged, held back, ended, answered.

use std::convert::Infallible;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::routing::get;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use objcg::{Memcg, Objcg, OomKilled};
use objcg_tower::{MemcgBody, MemcgLayer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, Service, ServiceExt, service_fn};

#[path = "../../objcg/tests/support/groups.rs"]
mod groups;
use groups::{assert_empty, group};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn request(path: &str) -> Request {
    Request::get(path).body(Body::empty()).expect("a request")
}

/// Sends one request to a router whose requests are all in the group.
async fn ask(router: Router, memcg: &Memcg, path: &str) -> (StatusCode, String) {
    let memcg = memcg.clone();
    let response = router.layer(MemcgLayer::new(move |_| Some(memcg.clone()))).oneshot(request(path)).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn handler_and_body_are_in_the_group_and_nothing_stays() {
    let tenant = group("handler");
    let seen = Arc::new(Mutex::new(0));
    let (noting, asked) = (Arc::clone(&seen), tenant.clone());
    let handler = async move || {
        let rows = vec![b'x'; 100_000];
        assert_eq!(Memcg::current(), asked);
        *noting.lock().unwrap() = asked.usage();
        rows
    };
    let (status, body) = runtime().block_on(async { ask(Router::new().route("/", get(handler)), &tenant, "/").await });
    assert_eq!((status, body.len()), (StatusCode::OK, 100_000));
    assert!(*seen.lock().unwrap() >= 100_000);
    assert_empty(&tenant);
}

#[test]
fn requests_without_a_group_are_where_they_would_be_without_the_layer() {
    let layer = MemcgLayer::new(|_| None);
    let router = Router::new().route("/", get(async || Memcg::current().path())).layer(layer);
    let response = runtime().block_on(router.oneshot(request("/"))).unwrap();
    let body = runtime().block_on(response.into_body().collect()).unwrap().to_bytes();
    assert_eq!(body, "/");
}

#[test]
fn the_request_chooses_the_group() {
    let server = group("chosen");
    let (a, b) = (server.create("a").unwrap(), server.create("b").unwrap());
    let layer = MemcgLayer::new(move |request| server.child(request.headers.get("x-tenant")?.to_str().ok()?));
    let router = Router::new().route("/", get(async || Memcg::current().name())).layer(layer);
    for memcg in [&a, &b] {
        let request = Request::get("/").header("x-tenant", memcg.name()).body(Body::empty()).unwrap();
        let response = runtime().block_on(router.clone().oneshot(request)).unwrap();
        let body = runtime().block_on(response.into_body().collect()).unwrap().to_bytes();
        assert_eq!(body, memcg.name());
    }
}

#[test]
fn a_request_of_a_killed_group_is_answered_without_a_call() {
    let tenant = group("dead");
    tenant.kill().unwrap();
    let handler = async || -> &'static str { unreachable!("the group is dead") };
    let (status, body) = runtime().block_on(ask(Router::new().route("/", get(handler)), &tenant, "/"));
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
    assert!(body.contains("out of memory"), "{body}");
}

#[test]
fn a_request_that_breaks_the_limit_ends_with_507_and_its_memory_returns() {
    let tenant = group("breaks");
    tenant.set_max(Some(1 << 20)).unwrap();
    let handler = async || {
        let mut kept = Vec::new();
        loop {
            kept.push(vec![0u8; 10_000]);
            tokio::task::yield_now().await;
        }
    };
    let router: Router = Router::new().route("/", get(async move || -> () { handler().await }));
    let (status, _) = runtime().block_on(ask(router.clone(), &tenant, "/"));
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
    assert!(tenant.peak() <= (1 << 20) + tenant.reserve());
    assert_empty(&tenant);
    tenant.revive().unwrap();
    let lives = Router::new().route("/", get(async || "lives"));
    assert_eq!(runtime().block_on(ask(lives, &tenant, "/")), (StatusCode::OK, "lives".to_owned()));
}

#[test]
fn a_handler_that_kills_its_group_with_its_last_poll_is_answered_as_killed() {
    let tenant = group("last-poll");
    let killed = tenant.clone();
    let handler = async move || {
        killed.kill().unwrap();
        "too late"
    };
    let (status, body) = runtime().block_on(ask(Router::new().route("/", get(handler)), &tenant, "/"));
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
    assert!(!body.contains("too late"));
    assert_empty(&tenant);
}

#[test]
fn a_request_that_waits_for_nothing_ends_when_its_group_is_killed() {
    let tenant = group("waits");
    let (started, waiting) = tokio::sync::oneshot::channel();
    let started = Arc::new(Mutex::new(Some(started)));
    let handler = async move || -> &'static str {
        let _rows = vec![0u8; 100_000];
        started.lock().unwrap().take().expect("asked once").send(()).unwrap();
        pending().await
    };
    let (killing, asked) = (tenant.clone(), tenant.clone());
    let (status, _) = runtime().block_on(async move {
        let asking = tokio::spawn(async move { ask(Router::new().route("/", get(handler)), &asked, "/").await });
        waiting.await.unwrap();
        killing.kill().unwrap();
        asking.await.unwrap()
    });
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
    assert_empty(&tenant);
}

#[test]
fn a_request_that_is_held_back_beyond_the_patience_gets_503_and_its_memory_returns() {
    let tenant = group("held");
    tenant.set_high(Some(100_000)).unwrap();
    let ballast = tenant.scope(|| vec![0u8; 300_000]);
    let handler = async || {
        let _rows = vec![0u8; 100_000];
        loop {
            tokio::task::yield_now().await;
        }
    };
    let memcg = tenant.clone();
    let layer = MemcgLayer::new(move |_| Some(memcg.clone())).patience(Duration::from_millis(30));
    let router: Router = Router::new().route("/", get(async move || -> () { handler().await })).layer(layer);
    let response = runtime().block_on(router.oneshot(request("/"))).unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    drop((response, ballast));
    assert_empty(&tenant);
}

#[test]
fn the_answers_can_be_the_users() {
    let tenant = group("answers");
    tenant.kill().unwrap();
    let memcg = tenant.clone();
    let layer = MemcgLayer::new(move |_| Some(memcg.clone())).on_killed(|refusal| {
        assert!(!refusal.is_grpc);
        assert_eq!(Memcg::current(), Memcg::root());
        let mut response = Response::new(Bytes::from(refusal.memcg.path()));
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        response
    });
    let router: Router = Router::new().route("/", get(async || "alive")).layer(layer.clone());
    let response = runtime().block_on(router.oneshot(request("/"))).unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let body = runtime().block_on(response.into_body().collect()).unwrap().to_bytes();
    assert_eq!(body, "/answers");
    drop(layer);
}

#[test]
fn a_panic_goes_through_and_leaves_the_group() {
    let (tenant, caller) = (group("panics"), group("panics-caller"));
    let memcg = tenant.clone();
    let layer = MemcgLayer::new(move |_| Some(memcg.clone()));
    let in_call =
        layer.layer(service_fn(|_: http::Request<Body>| -> std::future::Ready<Result<Response<Body>, Infallible>> {
            let _rows = vec![0u8; 100_000];
            resume_unwind(Box::new("on purpose"))
        }));
    let in_poll = layer.layer(service_fn(async |_: http::Request<Body>| -> Result<Response<Body>, Infallible> {
        let _rows = vec![0u8; 100_000];
        resume_unwind(Box::new("on purpose"))
    }));
    caller.scope(|| {
        let mut service = in_call;
        assert!(catch_unwind(AssertUnwindSafe(|| service.call(request("/")))).is_err());
        assert_eq!(Memcg::current(), caller);
        let mut service = in_poll;
        let mut future = Box::pin(service.call(request("/")));
        assert!(catch_unwind(AssertUnwindSafe(|| poll_once(future.as_mut()))).is_err());
        assert_eq!(Memcg::current(), caller);
    });
    assert_empty(&tenant);
}

#[test]
fn a_server_outlives_the_panics_of_its_handlers() {
    let tenant = group("survives");
    let memcg = tenant.clone();
    let panicking = async || -> &'static str { resume_unwind(Box::new("on purpose")) };
    let router = Router::new().route("/panic", get(panicking)).route("/", get(async || "lives"));
    let router = router.layer(MemcgLayer::new(move |_| Some(memcg.clone())));
    let runtime = runtime();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router).into_future());
        let ask = async |path: &str| {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert_eq!(ask("/panic").await, "", "the connection is cut");
        assert!(ask("/").await.ends_with("lives"));
    });
    drop(runtime);
    assert_empty(&tenant);
}

/// A body of so many frames, which tells in which group it is polled.
struct Frames(usize, Memcg);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert_eq!(Memcg::current(), self.1);
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        self.0 -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; 10_000])))))
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }
}

/// The response of a service in the group, with a body of so many frames.
fn respond(tenant: &Memcg, nr_frames: usize) -> Response<MemcgBody<Frames>> {
    let memcg = tenant.clone();
    let in_body = tenant.clone();
    let mut service = MemcgLayer::new(move |_| Some(memcg.clone())).layer(service_fn(move |_: http::Request<()>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Frames(nr_frames, in_body.clone()))))
    }));
    let Poll::Ready(response) = poll_once(std::pin::pin!(service.call(http::Request::new(())))) else {
        panic!("ready")
    };
    response.unwrap()
}

fn next_frame(body: &mut MemcgBody<Frames>) -> Option<Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>> {
    let Poll::Ready(frame) = poll_once(std::pin::pin!(body.frame())) else { panic!("ready") };
    frame
}

#[test]
fn a_body_is_polled_in_the_group_to_its_end() {
    let tenant = group("body");
    let mut body = respond(&tenant, 2).into_body();
    assert!(!http_body::Body::is_end_stream(&body));
    for _ in 0..2 {
        assert_eq!(next_frame(&mut body).unwrap().unwrap().into_data().unwrap().len(), 10_000);
    }
    assert!(http_body::Body::is_end_stream(&body));
    assert!(next_frame(&mut body).is_none());
    assert!(next_frame(&mut body).is_none());
    drop(body);
    assert_empty(&tenant);
}

#[test]
fn a_body_whose_group_is_killed_ends_with_the_error() {
    let tenant = group("body-killed");
    let mut body = respond(&tenant, 2).into_body();
    assert!(next_frame(&mut body).unwrap().is_ok());
    tenant.kill().unwrap();
    let error = next_frame(&mut body).expect("an error").expect_err("the group was killed");
    assert!(error.is::<OomKilled>());
    assert!(next_frame(&mut body).is_none());
    assert_empty(&tenant);
}
