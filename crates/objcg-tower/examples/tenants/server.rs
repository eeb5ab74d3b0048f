//! The server: axum, a layer that puts each request into its tenant's group, and a task a tenant that lets it live on after a kill.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;
use objcg::Memcg;
use objcg_tower::MemcgLayer;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::AnyError;
use crate::client::{ANSWERED_AT, Epoch};
use crate::tenant::Tenant;

/// How long a request of a tenant over its `high` is held back before it is answered with 503.
const PATIENCE: Duration = Duration::from_millis(250);

pub(crate) struct Tenants {
    /// The parent of all.
    _group: Memcg,
    pub(crate) all: Vec<Tenant>,
    /// How long after the end of the last task of a killed tenant its memory was back.
    pub(crate) returns: Mutex<Vec<Duration>>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) tenants: Arc<Tenants>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
    recovering: Vec<JoinHandle<()>>,
}

impl Tenants {
    pub(crate) fn new(nr_tenants: usize) -> Result<Tenants, AnyError> {
        let group = Memcg::root().create("server")?;
        let all = (0..nr_tenants).map(|number| Tenant::new(&group, &format!("tenant-{number}")));
        Ok(Tenants { all: all.collect::<Result<_, _>>()?, _group: group, returns: Mutex::default() })
    }

    fn of_number(&self, number: usize) -> Result<&Tenant, StatusCode> {
        self.all.get(number).ok_or(StatusCode::NOT_FOUND)
    }

    /// The group of a request: the first part of its path is the tenant's number.
    fn group_of(&self, path: &str) -> Option<Memcg> {
        let number = path.split('/').nth(1)?.parse::<usize>().ok()?;
        Some(self.all.get(number)?.memcg.clone())
    }

    /// Waits for kills of a tenant, until it is deleted, and lets it live on once its memory is back.
    async fn recover_killed(self: Arc<Self>, number: usize) {
        let tenant = &self.all[number];
        while tenant.memcg.killed().await.is_err() {
            let returned = tenant.recover().await;
            self.returns.lock().expect("nobody panics with it").extend(returned);
        }
    }
}

impl Server {
    pub(crate) async fn start(tenants: Tenants, epoch: Epoch) -> std::io::Result<Server> {
        let tenants = Arc::new(tenants);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let serving = axum::serve(listener, router(Arc::clone(&tenants), epoch)).with_graceful_shutdown(async {
            // An error is the sender's end, which is the same.
            let _ = stopped.await;
        });
        let numbers = 0..tenants.all.len();
        let recovering = numbers.map(|number| tokio::spawn(Arc::clone(&tenants).recover_killed(number))).collect();
        Ok(Server { address, tenants, stop, serving: tokio::spawn(serving.into_future()), recovering })
    }

    /// Ends the server; gives the tenants back, which nobody else has any more.
    pub(crate) async fn stop(self) -> Result<Tenants, AnyError> {
        for task in self.recovering {
            task.abort();
            // Aborted.
            let _ = task.await;
        }
        // The server may have ended before.
        let _ = self.stop.send(());
        self.serving.await??;
        Arc::into_inner(self.tenants).ok_or_else(|| "a request is left over".into())
    }
}

fn router(tenants: Arc<Tenants>, epoch: Epoch) -> Router {
    let choosing = Arc::clone(&tenants);
    let layer = MemcgLayer::new(move |request| choosing.group_of(request.uri.path())).patience(PATIENCE);
    Router::new()
        .route("/{tenant}/serve/{key}", get(serve))
        .route("/{tenant}/leak", get(leak))
        .route("/{tenant}/huge", get(huge))
        .route("/{tenant}/spawn", get(spawn))
        .route("/{tenant}/busy", get(busy))
        .layer(layer)
        .layer(map_response(move |mut response: Response| async move {
            response.headers_mut().insert(ANSWERED_AT, epoch.nanos().into());
            response
        }))
        .with_state(tenants)
}

/// The value, and beside it what came of the work.
async fn serve(
    State(tenants): State<Arc<Tenants>>,
    Path((number, key)): Path<(usize, u64)>,
) -> Result<([(&'static str, HeaderValue); 1], Bytes), StatusCode> {
    let (sum, value) = tenants.of_number(number)?.serve(key);
    Ok(([("x-sum", sum.into())], value))
}

async fn leak(State(tenants): State<Arc<Tenants>>, Path(number): Path<usize>) -> Result<(), StatusCode> {
    tenants.of_number(number)?.leak();
    Ok(())
}

async fn huge(State(tenants): State<Arc<Tenants>>, Path(number): Path<usize>) -> Result<String, StatusCode> {
    let result = tenants.of_number(number)?.huge();
    result.map(|nr_bytes| nr_bytes.to_string()).map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)
}

async fn spawn(State(tenants): State<Arc<Tenants>>, Path(number): Path<usize>) -> Result<(), StatusCode> {
    tenants.of_number(number)?.spawn_for_ever().await;
    Ok(())
}

async fn busy(State(tenants): State<Arc<Tenants>>, Path(number): Path<usize>) -> Result<(), StatusCode> {
    tenants.of_number(number)?.be_busy();
    Ok(())
}
