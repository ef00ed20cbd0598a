//! Local commands, with and without a daemon.

use std::time::Duration;

use component::audit::AuditLog;
use node::command::{Reply, Request, run};
use node::{daemon, handle};
use protocol::{Refusal, RefusalCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use transport::socket::connect_local;

use crate::world::{Played, RunningAgent, World, heart_dataset};

#[tokio::test]
async fn commands_work_on_the_folder_without_a_daemon() {
    let world = World::new();
    let dataset = heart_dataset(&world.heart("va.csv"), &["heart"]);
    let Reply::Dataset { detail } = run(&world.folder, Request::AddDataset { dataset: dataset.clone() }).await.unwrap()
    else {
        panic!()
    };
    let Reply::Datasets { rows } = run(&world.folder, Request::Datasets).await.unwrap() else { panic!() };
    assert_eq!(rows, [detail.row]);
    let refused = run(&world.folder, Request::AddDataset { dataset }).await.unwrap_err();
    assert!(refused.to_string().contains("conflict"), "{refused}");
    let Reply::Status { status } = run(&world.folder, Request::Status).await.unwrap() else { panic!() };
    assert_eq!((status.process, status.datasets, status.paused), (None, 1, false));
    assert!(run(&world.folder, Request::Stop).await.is_err());
    let Reply::AuditVerified { lines } = run(&world.folder, Request::AuditVerify).await.unwrap() else { panic!() };
    assert!(lines >= 2);
}

#[tokio::test]
async fn the_address_that_is_dialled_is_shown() {
    let mut world = World::new();
    let enrolment = world.enrol(&world.node());
    let shown = async |world: &World| {
        let Reply::Status { status } = world.node().answer(Request::Status, "ada").await else { panic!() };
        status.researchers[0].address.clone()
    };
    assert_eq!(shown(&world).await, enrolment.address.to_string());
    world.env.push(("FBM_RESEARCHER_IP".into(), "10.0.0.1".into()));
    assert_eq!(shown(&world).await, "10.0.0.1:50051");
    world.env.push(("FBM_RESEARCHER_PORT".into(), "1234".into()));
    assert_eq!(shown(&world).await, "10.0.0.1:1234");
}

#[tokio::test(start_paused = true)]
async fn a_researcher_that_refuses_the_node_is_in_the_audit_log_once_for_each_reason() {
    let mut world = World::new();
    let node = world.node();
    let enrolment = world.enrol(&node);
    let (played, mut sessions) = Played::new(&world.researcher);
    let refuse = |sentence: &str| played.refuse(Some(Refusal::new(RefusalCode::NodeRevoked, sentence)));
    let noted = || {
        let entries = AuditLog::tail(&world.folder.audit_file(), 1000).unwrap();
        entries.iter().filter(|entry| entry.event == "researcher.refused").count()
    };
    refuse("revoked");
    let _agent = RunningAgent::start(node, enrolment, played.clone());
    let while_it_tries = async || tokio::time::sleep(Duration::from_mins(21)).await;
    while_it_tries().await;
    assert_eq!(noted(), 1);
    refuse("not enrolled");
    while_it_tries().await;
    assert_eq!(noted(), 2);
    played.refuse(None);
    drop(sessions.recv().await.unwrap());
    refuse("not enrolled");
    while_it_tries().await;
    assert_eq!(noted(), 3, "it was let in meanwhile");
}

#[tokio::test]
async fn a_daemon_answers_on_its_socket_and_ends_when_told() {
    let world = World::new();
    let folder = world.folder.clone();
    let (end, ended) = oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        daemon::run(&folder, async {
            let _ = ended.await;
        })
        .await
    });
    let status = loop {
        let Reply::Status { status } = run(&world.folder, Request::Status).await.unwrap() else { panic!() };
        if status.process.is_some() {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(status.process, Some(std::process::id()));
    let Reply::Done { sentence } = run(&world.folder, Request::Pause).await.unwrap() else { panic!() };
    assert_eq!(sentence, "paused");
    let Reply::Status { status } = run(&world.folder, Request::Status).await.unwrap() else { panic!() };
    assert!(status.paused);
    let second = daemon::run(&world.folder, std::future::pending()).await.unwrap_err();
    assert!(second.to_string().contains(&std::process::id().to_string()), "{second}");
    assert!(matches!(run(&world.folder, Request::Stop).await.unwrap(), Reply::Done { .. }));
    running.await.unwrap().unwrap();
    drop(end);
    assert!(!world.folder.control_socket().exists());
}

#[tokio::test]
async fn an_enrolment_that_cannot_be_dropped_keeps_its_agent() {
    let mut world = World::new();
    let node = world.node();
    world.enrol(&node);
    drop(node);
    let folder = world.folder.clone();
    let running = tokio::spawn(async move { daemon::run(&folder, std::future::pending()).await });
    let state = async || {
        let Reply::Enrolments { rows } = run(&world.folder, Request::Enrolments).await.unwrap() else { panic!() };
        rows[0].state.clone()
    };
    // The key of this enrolment is nowhere, so its agent is in trouble, and says so.
    while matches!(state().await.as_str(), "not running" | "starting") {
        tokio::task::yield_now().await;
    }
    let database = rusqlite::Connection::open(world.folder.database_file()).unwrap();
    let guard = "CREATE TRIGGER guard BEFORE DELETE ON enrolment BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    database.execute_batch(guard).unwrap();
    let refused = run(&world.folder, Request::Forget { researcher: world.researcher.clone() }).await.unwrap_err();
    assert!(refused.to_string().contains("the disk is full"), "{refused}");
    while state().await == "starting" {
        tokio::task::yield_now().await;
    }
    database.execute_batch("DROP TRIGGER guard").unwrap();
    run(&world.folder, Request::Forget { researcher: world.researcher.clone() }).await.unwrap();
    run(&world.folder, Request::Stop).await.unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_pause_on_a_full_disk_holds_at_once_and_says_that_it_is_not_written_down() {
    let world = World::new();
    drop(world.node());
    let folder = world.folder.clone();
    let running = tokio::spawn(async move { daemon::run(&folder, std::future::pending()).await });
    started(&world).await;
    let database = rusqlite::Connection::open(world.folder.database_file()).unwrap();
    let guard = "CREATE TRIGGER guard BEFORE INSERT ON mark BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    database.execute_batch(guard).unwrap();
    let refused = run(&world.folder, Request::Pause).await.unwrap_err().to_string();
    let expected =
        "stopped 0 tasks at once, but not all could be written down: the node's database failed: the disk is full";
    assert!(refused.starts_with(expected), "{refused}");
    let is_paused = async || {
        let Reply::Status { status } = run(&world.folder, Request::Status).await.unwrap() else { panic!() };
        status.paused
    };
    assert!(is_paused().await, "it holds");
    database.execute_batch("DROP TRIGGER guard").unwrap();
    let Reply::Done { sentence } = run(&world.folder, Request::Pause).await.unwrap() else { panic!() };
    assert_eq!(sentence, "paused");
    let guard = "CREATE TRIGGER guard BEFORE DELETE ON mark BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    database.execute_batch(guard).unwrap();
    let refused = run(&world.folder, Request::Resume).await.unwrap_err().to_string();
    assert!(refused.starts_with("the node's database failed: the disk is full"), "{refused}");
    assert!(is_paused().await, "it is not taken back by halves");
    database.execute_batch("DROP TRIGGER guard").unwrap();
    run(&world.folder, Request::Resume).await.unwrap();
    assert!(!is_paused().await);
    run(&world.folder, Request::Stop).await.unwrap();
    running.await.unwrap().unwrap();
}

/// Waits until the daemon answers.
async fn started(world: &World) {
    loop {
        let Reply::Status { status } = run(&world.folder, Request::Status).await.unwrap() else { panic!() };
        if status.process.is_some() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// The file is large enough that a scan which nobody stops would end long after the checks, and register it.
#[test]
fn a_scan_ends_when_whoever_asked_for_it_goes_away_or_the_daemon_stops() {
    let world = World::new();
    drop(world.node());
    let path = world.folder.root().join("large.csv");
    std::fs::write(&path, format!("a,b\n{}", "1,2\n".repeat(8 << 20))).unwrap();
    let count = |event: &'static str| {
        let rows = AuditLog::tail(&world.folder.audit_file(), 1000).unwrap();
        rows.iter().filter(|row| row.event == event).count()
    };
    let ask = async || {
        let mut connection = connect_local(&world.folder.control_socket()).await.unwrap();
        let before = count("command.given");
        let body = Request::AddDataset { dataset: heart_dataset(&path, &["large"]) };
        let mut request = serde_json::to_vec(&serde_json::json!({ "schema": 1, "body": body })).unwrap();
        request.push(b'\n');
        connection.write_all(&request).await.unwrap();
        while count("command.given") == before {
            tokio::task::yield_now().await;
        }
        connection
    };
    for goes_away in [true, false] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = world.folder.clone();
            let running = tokio::spawn(async move { daemon::run(&folder, std::future::pending()).await });
            started(&world).await;
            let mut connection = ask().await;
            if goes_away {
                // Who says no more hangs up, as Ctrl-C does; here the other half still listens.
                connection.shutdown().await.unwrap();
                let mut reply = String::new();
                connection.read_to_string(&mut reply).await.unwrap();
                assert!(reply.contains("stopped while the data was read; nothing changed"), "{reply}");
            }
            run(&world.folder, Request::Stop).await.unwrap();
            running.await.unwrap().unwrap();
        });
        // This waits for all threads.
        drop(runtime);
        assert_eq!(count("dataset.added"), 0);
    }
}

#[test]
fn a_name_that_people_cannot_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(handle::create(&dir.path().join("n"), "").is_err());
    assert!(handle::create(&dir.path().join("n"), "a\nb").is_err());
    assert!(handle::create(&dir.path().join("n"), "North").is_ok());
}
