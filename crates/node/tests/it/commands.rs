//! Local commands, with and without a daemon.

use node::command::{Reply, Request, run};
use node::{daemon, handle};
use tokio::sync::oneshot;

use crate::world::{World, heart_dataset};

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

#[test]
fn a_name_that_people_cannot_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(handle::create(&dir.path().join("n"), "").is_err());
    assert!(handle::create(&dir.path().join("n"), "a\nb").is_err());
    assert!(handle::create(&dir.path().join("n"), "North").is_ok());
}
