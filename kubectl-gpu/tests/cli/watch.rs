// SPDX-License-Identifier: Apache-2.0
//! `--watch` into a pipe: an answer for each change.

use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::json;

use crate::server::{CLAIMS, objects, program, serve};

/// Far more than the time between two readings.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The first lines of the first answers that a program prints. Then the pipe is closed.
fn summaries(stdout: ChildStdout, answers: usize) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let summaries = lines.filter(|line| line.starts_with("1 node and"));
        summaries.take(answers).for_each(|line| sender.send(line).unwrap_or_default());
    });
    receiver
}

#[test]
fn a_pipe_gets_each_answer_that_differs() {
    let server = serve(objects(CLAIMS));
    let mut child = program(&server, &["status", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let summaries = summaries(child.stdout.take().unwrap(), 2);
    let first = summaries.recv_timeout(ANSWER_TIMEOUT).unwrap();
    assert!(first.starts_with("1 node and 2 GPUs: 1 free, 1 gpu"), "{first}");
    server.objects.lock().unwrap().insert(CLAIMS.to_owned(), json!([]));
    let next = summaries.recv_timeout(ANSWER_TIMEOUT);
    if next.is_err() {
        child.kill().unwrap();
    }
    assert!(next.unwrap().starts_with("1 node and 2 GPUs: 2 free"));
    // The reader has closed the pipe: the next answer ends the program.
    assert!(summaries.recv().is_err());
    server.objects.lock().unwrap().insert("/api/v1/namespaces/ml/pods".to_owned(), json!([]));
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_command_that_cannot_read_ends() {
    let mut objects = objects(CLAIMS);
    objects.remove("/apis/resource.k8s.io/v1/resourceslices");
    let server = serve(objects);
    for command in ["status", "faults"] {
        assert_eq!(
            program(&server, &[command, "-w"]).stderr(Stdio::null()).status().unwrap().code(),
            Some(3),
            "{command}"
        );
    }
}
