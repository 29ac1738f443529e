//! The built command without a worker: usage errors, exit codes, exact messages, pipes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tokio::net::TcpSocket;

/// The command in an environment of its own: no settings of the machine or its user.
fn alcedo(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alcedo"));
    command.env_clear().env("HOME", home).current_dir(home).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    alcedo(home.path()).args(args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A port that nobody listens on: it is taken as long as this is, so that nobody else begins to.
struct Dead(TcpSocket);

impl Dead {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    fn endpoint(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }
}

#[test]
fn what_cannot_be_understood_is_a_usage_error() {
    let cases: [(&[&str], &str); 19] = [
        (&["gt"], "error: unrecognized subcommand 'gt'"),
        (&["get"], "the following required arguments were not provided:\n  <PATH>"),
        (&["get", "lake/", "1", "--selec", "a"], "unexpected argument '--selec' found"),
        (&["get", "lake/", "1", "-o", "yaml"], "invalid value 'yaml' for '--output <FORMAT>'"),
        (&["get", "lake/", "1", "--timeout", "5"], "`5` is not a duration such as 5s or 250ms"),
        (&["get", "lake/", "1", "--first", "--limit", "2"], "cannot be used with '--limit <N>'"),
        (&["get", "lake/", "1", "--limit", "0"], "invalid value '0' for '--limit <N>'"),
        (&["get", "lake/"], "error: no key was given\nhint: write keys after the path"),
        (&["get", "lake/", "1", "-s", "a,*"], "error: --select * means all columns"),
        (
            &["stat", "lake/a", "-o", "csv"],
            "error: this command does not print csv\nhint: it prints: table, json, name\n",
        ),
        (&["get", "lake/", "1", "-o", "arrow", "--missing", "null"], "error: --missing null has no rows in an Arrow"),
        (&["get", "lake/", "1", "--maxrows", "-1"], "invalid value '-1' for '--maxrows <N>'"),
        (&["who"], "the following required arguments were not provided:\n  <PATH>"),
        (&["who", "lake/", "--replicas", "5"], "invalid value '5' for '--replicas <N>': 5 is not in 1..=4"),
        (
            &["free", "lake/"],
            "error: free drops what the workers hold of lake/, and nobody is here to ask\nhint: say --yes\n",
        ),
        (&["bench", "get", "lake/"], "the following required arguments were not provided:\n  --keys-from <FILE>"),
        (&["bench", "get", "a", "--keys-from", "b", "--count", "1", "-d", "1s"], "cannot be used with '--duration"),
        (&["status", "-o", "name"], "error: this command does not print name\nhint: it prints: table, json\n"),
        (&["completion", "cmd.exe"], "invalid value 'cmd.exe' for '<SHELL>'"),
    ];
    for (args, wanted) in cases {
        let output = run(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(wanted), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let version = run(&["-V"]);
    assert_eq!((code(&version), stdout(&version)), (0, format!("alcedo {}\n", env!("CARGO_PKG_VERSION"))));
    let help = run(&["get", "--help"]);
    assert_eq!(code(&help), 0);
    assert!(stdout(&help).contains("--keys-from <FILE>"), "{}", stdout(&help));
}

#[test]
fn completion_scripts_and_manual_pages_are_made_without_a_worker() {
    let script = run(&["completion", "bash"]);
    assert_eq!((code(&script), stderr(&script).as_str()), (0, ""));
    assert!(stdout(&script).contains("complete -F _alcedo"), "{}", stdout(&script));
    let page = run(&["man"]);
    assert_eq!(code(&page), 0);
    assert!(stdout(&page).contains(".TH alcedo 1") && stdout(&page).contains("alcedo\\-who(1)"), "{}", stdout(&page));
    let home = tempfile::tempdir().unwrap();
    let output = alcedo(home.path()).args(["man", "share/man1"]).output().unwrap();
    assert_eq!(
        (code(&output), stderr(&output).as_str()),
        (0, "share/man1 has the pages: man -l share/man1/alcedo.1\n")
    );
    assert!(home.path().join("share/man1/alcedo-bench-get.1").is_file());
    let output = alcedo(home.path()).args(["man", "share/man1/alcedo.1"]).output().unwrap();
    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
    assert!(stderr(&output).starts_with("error: cannot write to share/man1/alcedo.1: "), "{}", stderr(&output));
}

#[test]
fn without_a_worker_every_command_says_so() {
    let dead = Dead::new();
    let endpoint = dead.endpoint();
    let commands: [&[&str]; 12] = [
        &["get", "lake/users/", "1"],
        &["explain", "lake/users/", "1"],
        &["explain", "lake/users/", "-1", "--analyze"],
        &["stat", "lake/a.parquet"],
        &["ls"],
        &["who", "lake/a.parquet"],
        &["check", "lake/"],
        &["free", "lake/", "--yes"],
        &["status"],
        &["workers"],
        &["ring", "show"],
        &["bench", "get", "lake/", "--keys-from", "/proc/self/comm"],
    ];
    for args in commands {
        let output = run(&[args, &["--endpoints", &endpoint]].concat());
        let wanted = format!(
            "error: no worker reachable: {endpoint}: connection refused (tried 1)\n\
             hint: start one with `alcedo worker run -c worker.toml`, or name another with --endpoints HOST:PORT\n"
        );
        assert_eq!((code(&output), stderr(&output)), (4, wanted), "{args:?}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn colour_is_used_when_it_is_asked_for() {
    let dead = Dead::new();
    let endpoint = dead.endpoint();
    let output = run(&["ls", "-e", &endpoint, "--color", "always"]);
    assert!(stderr(&output).starts_with("\u{1b}[1;31merror:\u{1b}[0m no worker"), "{}", stderr(&output));
}

#[test]
fn endpoints_come_from_flag_then_variable_then_files() {
    let home = tempfile::tempdir().unwrap();
    let dead: [Dead; 4] = std::array::from_fn(|_| Dead::new());
    let [flag, variable, local, user] = std::array::from_fn(|number| dead[number].endpoint());
    let ls = |args: &[&str], variables: &[(&str, &str)]| {
        let output = alcedo(home.path()).arg("ls").args(args).envs(variables.iter().copied()).output().unwrap();
        assert_eq!(code(&output), 4, "{}", stderr(&output));
        stderr(&output)
    };
    let user_dir = home.path().join(".config/alcedo");
    std::fs::create_dir_all(&user_dir).unwrap();
    std::fs::write(user_dir.join("config.toml"), format!("[client]\nendpoints = [\"{user}\"]\n")).unwrap();
    assert!(ls(&[], &[]).contains(&user));
    std::fs::write(home.path().join("alcedo.toml"), format!("[client]\nendpoints = [\"{local}\"]\n")).unwrap();
    assert!(ls(&[], &[]).contains(&local));
    let by_variable = [("ALCEDO_ENDPOINTS", variable.as_str())];
    assert!(ls(&[], &by_variable).contains(&variable));
    assert!(ls(&["-e", &flag], &by_variable).contains(&flag));
}

#[test]
fn a_wrong_settings_file_is_named_with_its_line() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("alcedo.toml"), "[client]\n\nendpoint = [\"a:1\"]\n").unwrap();
    let output = alcedo(home.path()).arg("ls").output().unwrap();
    assert_eq!(
        (code(&output), stderr(&output).as_str()),
        (1, "error: alcedo.toml:3: unknown key `endpoint`: did you mean `endpoints`?\n")
    );
}

#[test]
fn a_bad_endpoint_is_refused_before_anything_is_asked() {
    let output = run(&["ls", "-e", "localhost"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).starts_with("error: the endpoint `localhost` is not usable: "), "{}", stderr(&output));
}

#[test]
fn keys_that_cannot_be_read_are_named_with_their_line() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("keys"), b"1\n\xff\n").unwrap();
    let (mut get, dead) = (alcedo(home.path()), Dead::new());
    let output = get.args(["get", "lake/", "--keys-from", "keys", "-e", &dead.endpoint()]).output().unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (1, "error: keys:2: is not UTF-8\n"));
    let output = alcedo(home.path()).args(["get", "lake/", "--keys-from", "nokeys"]).output().unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (1, "error: cannot open nokeys: entity not found\n"));
    let output = alcedo(home.path()).args(["get", "lake/", "--keys-from", "-"]).output().unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (2, "error: there is no key in the file of --keys-from\n"));
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Whether a process handles SIGINT (signal 2), as the kernel says it.
fn handles_interrupt(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & 0b10 != 0
}

#[test]
fn ctrl_c_ends_a_command_that_waits() {
    let home = tempfile::tempdir().unwrap();
    let mut child =
        alcedo(home.path()).args(["get", "lake/", "--keys-from", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take();
    while !handles_interrupt(&child) {
        std::thread::yield_now();
    }
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
}

#[cfg(feature = "worker")]
mod worker {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    fn with_config(text: &str, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let home = tempfile::tempdir().unwrap();
        let mut file = std::fs::File::create(home.path().join("worker.toml")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        alcedo(home.path()).args(args).envs(variables.iter().copied()).output().unwrap()
    }

    const CHECK: [&str; 3] = ["config", "check", "worker.toml"];

    #[test]
    fn a_check_that_fails_names_line_and_suggestion() {
        let output = with_config("worker_id = \"w-1\"\n\nlisten_on = \"127.0.0.1:1\"\n", &CHECK, &[]);
        let wanted = "error: worker.toml:3: unknown key `listen_on`: did you mean `listen`?\n";
        assert_eq!((code(&output), stderr(&output).as_str(), stdout(&output).as_str()), (7, wanted, ""));
        let output = with_config("", &CHECK, &[("ALCEDO_CACHE__PAGE", "1GiB")]);
        let wanted = "error: ALCEDO_CACHE__PAGE: unknown key `cache.page`: did you mean `cache.pages`?\n";
        assert_eq!((code(&output), stderr(&output).as_str()), (7, wanted));
    }

    #[test]
    fn a_check_that_passes_says_what_would_start() {
        let text = "worker_id = \"w-1\"\n[[mount]]\nname = \"lake\"\nurl = \"s3://bucket/x\"\n";
        let wanted = "worker.toml is fine: worker w-1, listens on 127.0.0.1:7610, 1 mount\n";
        let output = with_config(text, &CHECK, &[]);
        assert_eq!((code(&output), stdout(&output).as_str(), stderr(&output).as_str()), (0, wanted, ""));
        // The file may be named by the global flag too.
        let output = with_config(text, &["-c", "worker.toml", "config", "check"], &[]);
        assert_eq!((code(&output), stdout(&output).as_str()), (0, wanted));
    }

    #[test]
    fn settings_are_shown_with_their_origins_and_without_secrets() {
        let text = "worker_id = \"w-1\"\n[[mount]]\nname = \"lake\"\nurl = \"s3://AKIA:CANARY@bucket/x\"\n";
        let args = ["config", "show", "worker.toml", "--origin"];
        let output = with_config(text, &args, &[("ALCEDO_CACHE__PAGES", "1GiB"), ("ALCEDO_LOG", "info")]);
        let shown = stdout(&output);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let origin = |key: &str| {
            let line =
                shown.lines().find(|line| line.split(' ').next() == Some(key)).unwrap_or_else(|| panic!("{shown}"));
            line.rsplit("# ").next().unwrap().to_owned()
        };
        assert_eq!(origin("worker_id"), "worker.toml:1");
        assert_eq!(origin("cache.pages"), "ALCEDO_CACHE__PAGES");
        assert_eq!(origin("runtimes"), "default");
        assert!(!shown.contains("CANARY"), "{shown}");
    }

    #[test]
    fn a_worker_with_wrong_settings_does_not_start() {
        let output = with_config("lissen = 1\n", &["worker", "run", "-c", "worker.toml"], &[]);
        let wanted = "error: worker.toml:1: unknown key `lissen`: did you mean `listen`?\n";
        assert_eq!((code(&output), stderr(&output).as_str()), (1, wanted));
        let output = run(&["worker", "run", "-c", "absent.toml"]);
        let wanted = "error: cannot read absent.toml: entity not found\n\
                      hint: name the settings file: --config FILE; deploy/worker.example.toml is one\n";
        assert_eq!((code(&output), stderr(&output).as_str()), (1, wanted));
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let output =
            with_config("worker_id = \"w-1\"\n", &["worker", "run", "-c", "worker.toml", "--listen", &address], &[]);
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        assert!(stderr(&output).starts_with("error: ") && stderr(&output).contains(&address), "{}", stderr(&output));
    }

    #[test]
    fn a_reader_that_went_away_ends_it_quietly() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("worker.toml");
        std::fs::write(&config, "worker_id = \"w-1\"\n").unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut show = alcedo(home.path());
        let output =
            show.args(["config", "show", "worker.toml"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    }

    #[test]
    fn a_worker_says_that_it_is_ready_answers_and_drains() {
        let home = tempfile::tempdir().unwrap();
        let lake = home.path().join("lake");
        std::fs::create_dir(&lake).unwrap();
        let settings =
            format!("worker_id = \"w-1\"\n[[mount]]\nname = \"lake\"\nurl = \"file://{}\"\n", lake.display());
        std::fs::write(home.path().join("worker.toml"), settings).unwrap();
        let mut worker = alcedo(home.path())
            .args(["worker", "run", "-c", "worker.toml", "--listen", "127.0.0.1:0", "--id", "w-7"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(worker.stderr.take().unwrap()).lines();
        let ready = lines.next().unwrap().unwrap();
        let rest = ready.strip_prefix("alcedo worker w-7 ready on ").unwrap_or_else(|| panic!("{ready}"));
        let (address, _) = rest.split_once(", 1 mount").unwrap_or_else(|| panic!("{ready}"));

        let output = alcedo(home.path()).args(["ls", "-o", "name", "-e", address]).output().unwrap();
        assert_eq!((code(&output), stdout(&output).as_str(), stderr(&output).as_str()), (0, "lake\n", ""));
        let output = alcedo(home.path()).args(["get", "lake/absent.parquet", "1", "-e", address]).output().unwrap();
        assert_eq!(code(&output), 3, "{}", stderr(&output));
        let output = alcedo(home.path()).args(["get", "sea/", "1", "-e", address]).output().unwrap();
        assert_eq!(code(&output), 3, "{}", stderr(&output));
        assert!(stderr(&output).starts_with("error: sea/: no such mount"), "{}", stderr(&output));

        signal(&worker, "-TERM");
        assert_eq!(worker.wait().unwrap().code(), Some(0));
        let last = lines.last().unwrap().unwrap();
        assert!(last.contains("draining; another signal ends it at once"), "{last}");
    }
}
