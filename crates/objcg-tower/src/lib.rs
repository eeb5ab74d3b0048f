//! A `tower` layer that puts each request of a server into an `objcg` group: works with axum, tonic, and every service of
//! `http` requests.
//!
//! [`MemcgLayer`] asks a function of yours for the request's group. The call, the future of the response and the body of the
//! response then run inside: what they allocate is charged to the group. While the group is over its `high` the request is
//! held back, beyond a bound it is answered with 503; once the group is killed its requests end, their memory returns, and they are
//! answered with 507. Other groups' requests do not notice.
//!
//! ```
//! use axum::Router;
//! use axum::routing::get;
//! use objcg::{Memcg, Objcg};
//! use objcg_tower::MemcgLayer;
//!
//! #[global_allocator]
//! static GLOBAL: Objcg = Objcg;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Memcg::root().create("server")?;
//! let acme = server.create("acme")?;
//! acme.set_max(Some(64 << 20))?;
//!
//! let layer = MemcgLayer::new(move |request| {
//!     let tenant = request.headers.get("x-tenant")?.to_str().ok()?;
//!     server.child(tenant)
//! });
//! let app: Router = Router::new().route("/", get(async || Memcg::current().name())).layer(layer);
//! # let request = axum::extract::Request::get("/").header("x-tenant", "acme").body(axum::body::Body::empty())?;
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! # let response = runtime.block_on(tower::ServiceExt::oneshot(app, request))?;
//! # let answer = runtime.block_on(axum::body::to_bytes(response.into_body(), 100))?;
//! # assert_eq!(answer, "acme");
//! # Ok(())
//! # }
//! ```
//!
//! # What is outside
//! The connection, and the request as it was read from it: their buffers are not made by the request. What a handler spawns
//! is outside too, unless it is spawned by `objcg::tokio` or `objcg::thread`.
//!
//! # What this cannot catch
//! A panic goes through to whoever polls: hyper ends that one connection, and `tower_http::catch_panic` outside of this layer makes it
//! a 500. The group is left as it should be. An allocation that cannot fail and is refused (by [`OomPolicy::Fail`], or past the reserve of
//! [`OomPolicy::Kill`]) ends the process, as in any Rust program: let a poll allocate less than the reserve, or with `try_reserve`.
//!
//! [`OomPolicy::Fail`]: objcg::OomPolicy::Fail
//! [`OomPolicy::Kill`]: objcg::OomPolicy::Kill

#![forbid(unsafe_code)]

mod answer;
mod body;
mod layer;
mod response;

pub use answer::Refusal;
pub use body::MemcgBody;
pub use layer::{MemcgLayer, MemcgService};
pub use response::ResponseFuture;
