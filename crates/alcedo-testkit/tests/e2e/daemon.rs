//! The daemon as a service manager sees it: what it tells it and in which order, and what each signal does.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use alcedo_testkit::cluster::{WorkerProcess, worker_toml};
use alcedo_testkit::s3::{S3Options, S3Server};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

/// Longest wait for anything here: far longer than it takes, so that a slow machine fails no test.
const PATIENCE: Duration = Duration::from_secs(40);

/// A socket as systemd gives it to its services.
struct Manager {
    _directory: tempfile::TempDir,
    path: String,
    socket: tokio::net::UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::UnixDatagram::from_std(socket).unwrap();
        Self { _directory: directory, path: path.display().to_string(), socket }
    }

    /// The lines of the next message.
    async fn next(&self) -> Vec<String> {
        let mut message = [0; 4_096];
        let length = timeout(PATIENCE, self.socket.recv(&mut message)).await.unwrap().unwrap();
        std::str::from_utf8(&message[..length]).unwrap().lines().map(str::to_owned).collect()
    }

    /// The messages up to the first one with this line, that one included.
    async fn until(&self, line: &str) -> Vec<Vec<String>> {
        let mut messages = Vec::new();
        loop {
            let message = self.next().await;
            let found = message.iter().any(|said| said == line);
            messages.push(message);
            if found {
                return messages;
            }
        }
    }
}

fn says(messages: &[Vec<String>], start: &str) -> bool {
    messages.iter().flatten().any(|line| line.starts_with(start))
}

async fn eventually_says(worker: &WorkerProcess, text: &str) -> String {
    let waiting = async {
        loop {
            let said = worker.stderr().unwrap();
            if said.contains(text) {
                return said;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no `{text}` in {}", worker.stderr().unwrap()))
}

fn admin_of(worker: &WorkerProcess) -> SocketAddr {
    let said = worker.stderr().unwrap();
    said.split_once("admin on ").unwrap().1.split_whitespace().next().unwrap().parse().unwrap()
}

async fn metric(worker: &WorkerProcess, sample: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(admin_of(worker)).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in {text}")).to_owned()
}

async fn started(toml: &str, environment: &[(&str, &str)]) -> (S3Server, WorkerProcess) {
    let store = S3Server::start(S3Options::default()).unwrap();
    let toml = worker_toml(&store.url(), "", toml);
    let worker = WorkerProcess::start(&toml, environment).await.unwrap();
    (store, worker)
}

fn signal(worker: &WorkerProcess, signal: Signal) {
    let id = worker.id().unwrap();
    kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn the_service_manager_is_told_in_order() {
    let manager = Manager::new();
    let environment = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "1500000")];
    let (_store, mut worker) = started("", &environment).await;
    let starting = manager.until("READY=1").await;
    assert_eq!(starting[0], ["STATUS=opening the stores"]);
    assert!(says(&starting, "EXTEND_TIMEOUT_USEC=30000000"), "{starting:?}");
    assert!(says(&starting, "STATUS=serving, ring epoch "), "{starting:?}");
    assert!(!says(&starting, "WATCHDOG=1"), "{starting:?}");
    // Each of these is a proof; it goes on.
    manager.until("WATCHDOG=1").await;
    manager.until("WATCHDOG=1").await;
    worker.reload().unwrap();
    let mut reloading = manager.until("RELOADING=1").await;
    assert!(reloading.pop().unwrap()[1].starts_with("MONOTONIC_USEC="));
    manager.until("READY=1").await;
    let ended = tokio::spawn(async move { worker.terminate().await.unwrap() });
    let stopping = manager.until("STOPPING=1").await;
    assert!(!says(&stopping, "STATUS=draining"), "{stopping:?}");
    manager.until("STATUS=draining").await;
    assert_eq!(ended.await.unwrap(), Some(0));
}

#[tokio::test]
async fn a_reload_takes_what_it_can_and_refuses_what_is_wrong() {
    let (_store, worker) = started("", &[]).await;
    let path = worker.home().join("worker.toml");
    let before = std::fs::read_to_string(&path).unwrap();
    let rewrite = |from: &str, to: &str| std::fs::write(&path, before.replace(from, to)).unwrap();
    rewrite("runtimes = 2\n", "runtimes = 2\nlisen = \"x\"\n");
    worker.reload().unwrap();
    let said = eventually_says(&worker, "the settings were not reloaded").await;
    assert!(said.contains("unknown key `lisen`: did you mean `listen`?"), "{said}");
    rewrite("runtimes = 2\n", "runtimes = 2\n[log]\nfilter = \"alcedo=loud\"\n");
    worker.reload().unwrap();
    eventually_says(&worker, "is no log filter").await;
    assert_eq!(metric(&worker, "alcedo_config_reloads_total{result=\"refused\"}").await, "2");
    rewrite("runtimes = 2\n", "runtimes = 3\n[log]\nfilter = \"alcedo_worker=debug\"\n[drain]\ngrace = \"10s\"\n");
    worker.reload().unwrap();
    let said = eventually_says(&worker, "the settings were reloaded").await;
    assert!(said.contains("taken=\"drain.grace log.filter\""), "{said}");
    assert!(said.contains("needs a restart") && said.contains("runtimes"), "{said}");
    assert_eq!(metric(&worker, "alcedo_config_reloads_total{result=\"ok\"}").await, "1");
    signal(&worker, Signal::USR1);
    eventually_says(&worker, "mount lake: ").await;
    worker.kill().await.unwrap();
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_at_once() {
    let tables = "members = [\"w-1=127.0.0.1:1\", \"w-2=127.0.0.1:2\"]\n[drain]\nnotice = \"1h\"\n";
    let (_store, mut worker) = started(tables, &[]).await;
    signal(&worker, Signal::TERM);
    eventually_says(&worker, "draining; another signal ends it at once").await;
    assert_ne!(worker.terminate().await.unwrap(), Some(0));
}

#[tokio::test]
async fn a_worker_out_of_file_descriptors_pauses_and_lives() {
    let (_store, worker) = started("[connections]\nmax = 500\n", &[]).await;
    let admin = admin_of(&worker);
    let pid = Pid::from_raw(worker.id().unwrap().try_into().unwrap()).unwrap();
    let open = std::fs::read_dir(Path::new("/proc").join(worker.id().unwrap().to_string()).join("fd")).unwrap().count();
    let few = Rlimit { current: Some(open as u64 + 8), maximum: Some(20_000) };
    let before = prlimit(Some(pid), Resource::Nofile, few).unwrap();
    let endpoint: SocketAddr = worker.endpoint().parse().unwrap();
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(endpoint).unwrap()).collect();
    eventually_says(&worker, "no connection can be accepted").await;
    drop(crowd);
    let back = async {
        loop {
            if let Ok(mut socket) = tokio::net::TcpStream::connect(admin).await {
                let asked = socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").await;
                let mut text = String::new();
                if asked.is_ok() && socket.read_to_string(&mut text).await.is_ok() && text.ends_with("alive\n") {
                    return;
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, back).await.unwrap();
    prlimit(Some(pid), Resource::Nofile, before).unwrap();
    assert_ne!(metric(&worker, "alcedo_accept_errors_total").await, "0");
    let client = alcedo_client::Client::builder().endpoints([worker.endpoint()]).deadline(PATIENCE).build().unwrap();
    assert_eq!(client.cluster().await.unwrap().mounts.len(), 1);
    worker.kill().await.unwrap();
}
