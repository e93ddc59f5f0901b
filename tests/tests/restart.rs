// SPDX-License-Identifier: Apache-2.0
//! The plugin exits, the node reboots, two plugins share the state: the same answers, and nothing is left behind.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use dra_tests::api_server::{Key, Resource};
use dra_tests::claim::NAMESPACE;
use dra_tests::kubelet::{Claim, DEADLINE, Device};
use dra_tests::wait::until;
use dra_tests::{Mode, NewClaim, Node};
use rustix::fs::inotify;
use serde_json::{Value, json};

/// Counts what happens in directories, so that a process can be killed at the k-th effect.
struct Effects(Vec<rustix::fd::OwnedFd>);

impl Effects {
    fn watch(dirs: &[PathBuf]) -> Self {
        let watch = |dir: &PathBuf| {
            let queue = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
            let changes = inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::DELETE
                | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&queue, dir, changes).unwrap();
            queue
        };
        Self(dirs.iter().map(watch).collect())
    }

    /// Returns as soon as that many have happened, or when no more will come.
    async fn reach(&self, wanted: usize, is_over: impl Fn() -> bool) {
        let mut seen = 0;
        while seen < wanted && !is_over() {
            for queue in &self.0 {
                let mut space = [std::mem::MaybeUninit::uninit(); 4096];
                let mut events = inotify::Reader::new(queue, &mut space);
                while events.next().is_ok() {
                    seen += 1;
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

fn claims(node: &Node, round: usize, count: usize) -> Vec<Claim> {
    (0..count).map(|gpu| NewClaim::of(&format!("r{round}-c{gpu}"), &node.gpus.name(gpu)).create(&node.api)).collect()
}

/// The answers of a call in which nothing may fail.
async fn prepared(node: &Node, claims: &[Claim]) -> BTreeMap<String, Vec<Device>> {
    let answers = node.kubelet.prepare_all(claims).await.unwrap();
    answers.into_iter().map(|(uid, answer)| (uid, answer.unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_at_any_effect_the_plugin_gives_the_same_answers_and_leaks_nothing() {
    const GPUS: usize = 4;
    const ROUNDS: usize = 14;
    let node = Node::new("t4:4");
    let mut plugin = node.start(Mode::Process).await;
    let dirs = [node.state_dir().join("claims"), node.cdi_dir()];
    for round in 0..ROUNDS {
        let claims = claims(&node, round, GPUS);
        for undo in [false, true] {
            let effects = Effects::watch(&dirs);
            let call = tokio::spawn({
                let (instance, claims) = (node.kubelet.until_registered().await, claims.clone());
                // The kubelet's call fails with the plugin; it is the retry that counts.
                async move {
                    if undo {
                        instance.unprepare_within(DEADLINE, &claims).await.map(drop)
                    } else {
                        instance.prepare_within(DEADLINE, &claims).await.map(drop)
                    }
                }
            });
            // An undo has few effects, and they follow each other fast.
            let wanted = if undo { round % 4 } else { 1 + round * 2 };
            effects.reach(wanted, || call.is_finished()).await;
            plugin.kill().await;
            call.await.unwrap().unwrap_or_default();
            plugin = node.start(Mode::Process).await;
            if undo {
                let undone = node.kubelet.unprepare_all(&claims).await.unwrap();
                assert!(undone.values().all(Result::is_ok), "round {round}: {undone:?}");
                until("all temporary files are collected", || node.leftovers().is_empty().then_some(())).await;
            } else {
                let answers = prepared(&node, &claims).await;
                for (gpu, claim) in claims.iter().enumerate() {
                    let nodes = node.own_nodes(&answers[&claim.uid]);
                    assert_eq!(nodes, [node.gpus.node(gpu)].into(), "round {round}");
                }
                assert_eq!(prepared(&node, &claims).await, answers, "round {round}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_running_pods_keep_their_devices_and_lost_specs_come_back_unasked() {
    let node = Node::new("t4:2");
    let mut plugin = node.start(Mode::Process).await;
    let claim = NewClaim::of("running", &node.gpus.name(0)).create(&node.api);
    let devices = node.kubelet.prepare(&claim).await.unwrap();
    let before = node.leftovers();
    plugin.kill().await;
    for entry in fs::read_dir(node.cdi_dir()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let _plugin = node.start(Mode::Process).await;
    until("the specs are there again", || (node.leftovers() == before).then_some(())).await;
    assert_eq!(node.own_nodes(&devices), [node.gpus.node(0)].into());
    let thief = NewClaim::of("thief", &node.gpus.name(0)).create(&node.api);
    let refused = node.kubelet.prepare(&thief).await.unwrap_err();
    assert!(refused.contains("held by claim default/running"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_everything_is_built_anew() {
    let node = Node::new("t4:1,h100:1");
    let cut = node.gpus.cut(1, "1g.10gb");
    let mut plugin = node.start(Mode::Process).await;
    let whole = NewClaim::of("whole", &node.gpus.name(0)).create(&node.api);
    let part = NewClaim::of("part", &cut).create(&node.api);
    let before = node.kubelet.prepare(&whole).await.unwrap();
    node.kubelet.prepare(&part).await.unwrap();
    plugin.kill().await;
    node.gpus.reboot();
    fs::remove_dir_all(node.cdi_dir()).unwrap();
    let _plugin = node.start(Mode::Process).await;
    assert_eq!(node.kubelet.prepare(&whole).await.unwrap(), before);
    assert_eq!(node.own_nodes(&before), [node.gpus.node(0)].into());

    // MIG instances do not survive a reboot; the administrator creates them again, or the pod gets an Event.
    let refused = node.kubelet.prepare(&part).await.unwrap_err();
    assert!(refused.contains(&cut) && refused.contains("no longer exists"), "{refused}");
    assert_eq!(node.gpus.cut(1, "1g.10gb"), cut);
    let devices = node.kubelet.prepare(&part).await.unwrap();
    assert_eq!(node.own_nodes(&devices).len(), 3);
    for claim in [&whole, &part] {
        node.kubelet.unprepare(claim).await.unwrap();
    }
    assert_eq!(node.leftovers(), [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_plugin_unprepares_without_an_api_server_and_without_a_driver() {
    let mut node = Node::new("t4:1,h100:1");
    let cut = node.gpus.cut(1, "1g.10gb");
    let mut plugin = node.start(Mode::Process).await;
    let whole = NewClaim::of("whole", &node.gpus.name(0)).create(&node.api);
    let part = NewClaim::of("part", &cut).create(&node.api);
    for claim in [&whole, &part] {
        node.kubelet.prepare(claim).await.unwrap();
    }
    plugin.kill().await;
    node.api.go_down().await;
    node.gpus.unload_driver();
    node.gpus.uninstall();
    let _plugin = node.start(Mode::Process).await;
    for claim in [&whole, &part] {
        node.kubelet.unprepare(claim).await.unwrap();
        node.kubelet.unprepare(claim).await.unwrap();
    }
    assert_eq!(node.leftovers(), [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mig_device_of_a_lost_record_stays_and_is_reported_on_the_node() {
    let node = Node::new("h100:1");
    let mut plugin = node.start(Mode::Process).await;
    let device = format!("{}-mig-19-6", node.gpus.name(0));
    let claim = NewClaim::of("c", &device).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
    plugin.kill().await;
    fs::remove_dir_all(node.state_dir()).unwrap();
    let _plugin = node.start(Mode::Process).await;
    let recorded = |events: &[Value]| {
        let is_wanted = |event: &&Value| event["reason"] == "MigRecordsLost" && event["regarding"]["kind"] == "Node";
        Some(events.iter().find(is_wanted)?["note"].as_str().unwrap_or_default().to_owned())
    };
    let text = node.api.until("an Event on the Node", Resource::Events, recorded).await;
    assert!(text.contains(&device) && text.contains("nvidia-smi mig -dgi"), "{text}");
    node.kubelet.unprepare(&claim).await.unwrap();
    assert_eq!(node.gpus.state().gpus[0].instances.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_quarantined_and_stops_nothing() {
    let node = Node::new("t4:2");
    let claims_dir = node.state_dir().join("claims");
    fs::create_dir_all(&claims_dir).unwrap();
    fs::write(claims_dir.join("11111111-2222-4333-8444-555555555555.json"), "\u{0}garbage").unwrap();
    let plugin = node.start(Mode::Process).await;
    plugin.until_logged("claim record is quarantined").await;
    let one = |_, body: &str| body.contains("gpu_dra_quarantined_records 1").then_some(());
    plugin.until_http("/metrics", one).await;
    assert_eq!(fs::read_dir(&claims_dir).unwrap().count(), 0);
    assert!(fs::read_dir(node.state_dir().join("quarantine")).unwrap().count() > 0, "nothing is thrown away");
    let claim = NewClaim::of("c", &node.gpus.name(1)).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_of_an_upgrade_share_the_records() {
    let node = Node::new("t4:2");
    let mut old = node.start_instance(Mode::Process, "old");
    let old_plugin = node.kubelet.until_registered().await;
    let first = NewClaim::of("first", &node.gpus.name(0)).create(&node.api);
    let answer = node.kubelet.prepare(&first).await.unwrap();
    let mut new = node.start_instance(Mode::Process, "new");
    let both = |plugins: &[dra_tests::kubelet::Plugin]| plugins.get(1).cloned();
    let new_plugin = node.kubelet.until_plugins("both instances are registered", both).await;
    assert_eq!(node.kubelet.prepare(&first).await.unwrap(), answer, "the new one knows what the old one did");

    // Two claims for one GPU, each asked of another instance at the same time: one of them gets it.
    let rivals = ["left", "right"].map(|name| NewClaim::of(name, &node.gpus.name(1)).create(&node.api));
    let left = old_plugin.prepare_within(DEADLINE, &rivals[..1]);
    let right = new_plugin.prepare_within(DEADLINE, &rivals[1..]);
    let (left, right) = tokio::join!(left, right);
    let answers = [left.unwrap(), right.unwrap()].map(|mut answers| answers.pop_first().unwrap().1);
    let losers: Vec<&String> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert_eq!(losers.len(), 1, "{answers:?}");
    assert!(losers[0].contains(&node.gpus.name(1)), "{}", losers[0]);

    assert!(old.stop().await, "{}", old.log());
    for claim in rivals.iter().chain([&first]) {
        node.kubelet.unprepare(claim).await.unwrap();
    }
    assert_eq!(node.leftovers(), [].into());
    assert!(new.stop().await, "{}", new.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_ended_while_the_node_was_down_are_collected() {
    let node = Node::new("t4:4");
    let mut plugin = node.start(Mode::Process).await;
    let names = ["ended", "released", "moved", "allocated"];
    let claims = [0, 1, 2, 3].map(|at| NewClaim::of(names[at], &node.gpus.name(at)).create(&node.api));
    for claim in &claims {
        node.kubelet.prepare(claim).await.unwrap();
    }
    plugin.kill().await;
    node.gpus.reboot();
    let [ended, released, moved, allocated] = claims;
    let key = |claim: &Claim| Key {
        resource: Resource::ResourceClaims,
        namespace: NAMESPACE.to_owned(),
        name: claim.name.clone(),
    };
    node.api.remove(&key(&ended));
    node.api.edit(&key(&released), |claim| claim["status"] = json!({}));
    node.api
        .edit(&key(&moved), |claim| claim["status"]["allocation"]["devices"]["results"][0]["pool"] = json!("other"));
    let _plugin = node.start(Mode::Process).await;
    let is_there = |claim: &Claim| node.leftovers().iter().any(|name| name.contains(&claim.uid));
    let collected = || (![&ended, &released, &moved].into_iter().any(is_there)).then_some(());
    until("the claims that ended here are undone", collected).await;
    assert!(is_there(&allocated));
    let next = NewClaim::of("next", &node.gpus.name(0)).create(&node.api);
    node.kubelet.prepare(&next).await.unwrap();
    node.kubelet.prepare(&allocated).await.unwrap();
}

fn flip_one_bit_of_the_record(node: &Node, claim_uid: &str) {
    let path = node.state_dir().join("claims").join(format!("{claim_uid}.json"));
    let mut record = fs::read(&path).unwrap();
    let middle = record.len() / 2;
    *record.get_mut(middle).unwrap() ^= 1;
    fs::write(&path, record).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gpu_of_a_running_pod_with_a_damaged_record_stays_reserved() {
    let node = Node::new("t4:1");
    let mut plugin = node.start(Mode::Process).await;
    let [holder, thief] = ["holder", "thief"].map(|name| NewClaim::of(name, &node.gpus.name(0)).create(&node.api));
    node.kubelet.prepare(&holder).await.unwrap();
    let before = node.leftovers();
    plugin.kill().await;
    flip_one_bit_of_the_record(&node, &holder.uid);
    let plugin = node.start(Mode::Process).await;
    plugin.until_logged("claim record is quarantined").await;
    let refused = node.kubelet.prepare(&thief).await.unwrap_err();
    assert!(refused.contains("reserved by claim default/holder, whose record"), "{refused}");
    let specs = |names: std::collections::BTreeSet<String>| {
        names.into_iter().filter(|name| name.contains("-claim_")).collect::<Vec<_>>()
    };
    assert_eq!(specs(node.leftovers()), specs(before), "its pod may be running");
    node.kubelet.unprepare(&holder).await.unwrap();
    node.kubelet.prepare(&thief).await.unwrap();
    node.kubelet.unprepare(&thief).await.unwrap();
    assert_eq!(node.leftovers(), [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_of_a_running_pod_is_made_anew_from_its_claim() {
    let node = Node::new("t4:1");
    let mut plugin = node.start(Mode::Process).await;
    let claim = NewClaim::of("running", &node.gpus.name(0)).create(&node.api);
    let devices = node.kubelet.prepare(&claim).await.unwrap();
    plugin.kill().await;
    flip_one_bit_of_the_record(&node, &claim.uid);
    let plugin = node.start(Mode::Process).await;
    plugin.until_logged("claim record is quarantined").await;
    assert_eq!(node.kubelet.prepare(&claim).await.unwrap(), devices);
    let thief = NewClaim::of("thief", &node.gpus.name(0)).create(&node.api);
    let refused = node.kubelet.prepare(&thief).await.unwrap_err();
    assert!(refused.contains("held by claim default/running"), "{refused}");
    node.kubelet.unprepare(&claim).await.unwrap();
    assert_eq!(node.leftovers(), [].into());
}
