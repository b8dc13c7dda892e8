//! Tests only: an S3 server on this host, of the crates `s3s` and `s3s-fs`, that checks signatures
//! and keeps objects as files; it can be stopped and started again at the same address.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A folder of its own, gone at the end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("shadowd-repository-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The server.
pub(crate) struct Server {
    root: PathBuf,
    address: SocketAddr,
    running: Option<(oneshot::Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Server {
    pub(crate) const BUCKET: &str = "shadowd-test";
    pub(crate) const KEY: &str = "AKIASHADOWDTEST";
    pub(crate) const SECRET: &str = "not-a-secret-of-anybody";

    /// One with an empty bucket, whose objects are files below `root`.
    pub(crate) fn start(root: &Path) -> Self {
        std::fs::create_dir_all(root.join(Self::BUCKET)).unwrap();
        let mut server = Self {
            root: root.to_owned(),
            address: ([127, 0, 0, 1], 0).into(),
            running: None,
        };
        server.start_again();
        server
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The folder of the bucket.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.root.join(Self::BUCKET)
    }

    /// Writes the file with its keys into `folder`.
    pub(crate) fn credentials(&self, folder: &Path) -> PathBuf {
        let path = folder.join("s3.credentials");
        let (key, secret) = (Self::KEY, Self::SECRET);
        let lines = format!("access_key_id = {key}\nsecret_access_key = {secret}\n");
        std::fs::write(&path, lines).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// Whoever asks finds nobody listening.
    pub(crate) fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            thread.join().unwrap();
        }
    }

    /// The same at the same address.
    pub(crate) fn start_again(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let files = FileSystem::new(&self.root).unwrap();
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(Self::KEY, Self::SECRET));
        let service = builder.build();
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let (stop, mut stopped) = oneshot::channel::<()>();
        let serve = async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let stream = tokio::select! {
                    _ = &mut stopped => break,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let service = service.clone();
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    let _ = connection.await;
                });
            }
        };
        let thread = std::thread::spawn(move || runtime.block_on(serve));
        self.running = Some((stop, thread));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
