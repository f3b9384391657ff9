//! What groups allow and refuse, case by case. Expectations are Kafka's.

#[path = "groups/alone.rs"]
mod alone;

use std::time::Duration;

use alone::*;
use coordinator::group::GroupConfig;
use coordinator::group::request::*;

fn alone() -> Alone {
    Alone::new(GroupConfig::default())
}

/// A stable group of two: the leader's id and the other's, both in generation 1.
fn two() -> (Alone, String, String) {
    let mut g = alone();
    let (a, join_a) = g.enter(consumer());
    let (b, join_b) = g.enter(consumer());
    g.pass_ms(6_000);
    let generation = g.joined(join_a).unwrap().generation.unwrap();
    assert_eq!((generation.id, &generation.leader), (1, &a));
    assert_eq!(generation.members.len(), 2);
    assert!(g.joined(join_b).unwrap().generation.unwrap().members.is_empty());
    let sync_b = g.sync(&b, 1, &[]);
    assert_eq!(g.synced(sync_b), None, "until the leader has assigned");
    let sync_a = g.sync(&a, 1, &[(&a, "A"), (&b, "B")]);
    assert_eq!(g.synced(sync_a), Some(Ok("A".into())));
    assert_eq!(g.synced(sync_b), Some(Ok("B".into())));
    assert_eq!(g.state(), "Stable");
    (g, a, b)
}

#[test]
fn the_first_generation_waits_for_more_members() {
    let mut g = alone();
    let (_, first) = g.enter(consumer());
    assert_eq!(g.state(), "PreparingRebalance");
    g.pass_ms(2_900);
    let (_, second) = g.enter(consumer());
    g.pass_ms(200);
    assert_eq!(g.joined(first), None, "another round, because somebody came");
    g.pass_ms(2_700);
    assert_eq!(g.joined(first), None);
    g.pass_ms(300);
    assert!(g.joined(first).unwrap().generation.is_ok());
    assert!(g.joined(second).unwrap().generation.is_ok());
    assert_eq!(g.state(), "CompletingRebalance");
}

#[test]
fn the_first_wait_ends_with_the_rebalance_timeout_at_the_latest() {
    let mut g = alone();
    let (_, first) = g.enter(Join { rebalance_ms: 7_000, ..consumer() });
    for _ in 0..3 {
        g.pass_ms(2_000);
        g.enter(Join { rebalance_ms: 7_000, ..consumer() });
    }
    g.pass_ms(1_100);
    assert!(g.joined(first).unwrap().generation.is_ok(), "after 3 + 3 + 1 seconds");
}

#[test]
fn who_cannot_come_back_with_an_id_is_a_member_at_once() {
    let mut g = alone();
    let token = g.join(Join { takes_member_id: false, ..consumer() });
    g.pass_ms(3_000);
    let joined = g.joined(token).unwrap();
    assert!(joined.member.starts_with("c-") && joined.member.len() == 2 + 36, "{joined:?}");
    assert!(joined.generation.is_ok());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut g = alone();
    let mut why = |join: Join| {
        let token = g.join(join);
        g.joined(token).unwrap().generation.unwrap_err()
    };
    let short = Join { session_ms: 5_999, ..consumer() };
    assert_eq!(why(short), GroupFault::InvalidSessionTimeout);
    let long = Join { session_ms: 1_800_001, ..consumer() };
    assert_eq!(why(long), GroupFault::InvalidSessionTimeout);
    assert_eq!(why(Join { group: "".into(), ..consumer() }), GroupFault::InvalidGroupId);
    let unheard = Join { member: "x".into(), ..consumer() };
    assert_eq!(why(unheard), GroupFault::UnknownMemberId);
    let mute = Join { protocols: vec![], ..consumer() };
    assert_eq!(why(mute), GroupFault::InconsistentGroupProtocol);
    let mute = Join { protocol_type: "".into(), ..consumer() };
    assert_eq!(why(mute), GroupFault::InconsistentGroupProtocol);
    let endless = Join { client_id: "c".repeat(40_000), ..consumer() };
    assert_eq!(why(endless), GroupFault::InvalidRequest);
    assert_eq!(g.describe("g").fault, Some(GroupFault::GroupIdNotFound), "nothing came of it");
    assert_eq!(g.state(), "Dead");
    assert!(g.log.is_empty());
}

#[test]
fn any_kind_of_members_agree_on_what_all_can_and_most_want() {
    let worker = |names: &[&str]| Join {
        protocol_type: "connect".into(),
        protocols: names
            .iter()
            .map(|name| Protocol { name: name.to_string(), metadata: name.as_bytes().into() })
            .collect(),
        ..consumer()
    };
    let mut g = alone();
    let (_, a) = g.enter(worker(&["sessioned", "compatible", "eager"]));
    let (_, b) = g.enter(worker(&["eager", "compatible"]));
    let (_, c) = g.enter(worker(&["compatible", "eager"]));
    let other = g.join(Join { protocol_type: "consumer".into(), ..worker(&["eager"]) });
    let why = |joined: Option<Joined>| joined.unwrap().generation.unwrap_err();
    assert_eq!(why(g.joined(other)), GroupFault::InconsistentGroupProtocol);
    let alien = g.join(worker(&["sessioned"]));
    assert_eq!(why(g.joined(alien)), GroupFault::InconsistentGroupProtocol);
    g.pass_ms(9_000);
    let generation = g.joined(a).unwrap().generation.unwrap();
    assert_eq!(generation.protocol.as_deref(), Some("compatible"), "two of three");
    assert_eq!(generation.protocol_type.as_deref(), Some("connect"));
    assert!(generation.members.iter().all(|member| member.metadata == b"compatible"));
    assert!(g.joined(b).is_some() && g.joined(c).is_some());
}

#[test]
fn a_third_member_calls_the_others_together() {
    let (mut g, a, b) = two();
    let (c, join_c) = g.enter(consumer());
    assert_eq!(g.heartbeat(&a, 1), Err(GroupFault::RebalanceInProgress));
    let join_a = g.join(Join { member: a.clone(), ..consumer() });
    assert_eq!(g.joined(join_a), None);
    let late = g.sync(&b, 1, &[]);
    assert_eq!(g.synced(late), Some(Err(GroupFault::RebalanceInProgress)));
    let join_b = g.join(Join { member: b.clone(), ..consumer() });
    let generation = g.joined(join_a).unwrap().generation.unwrap();
    assert_eq!((generation.id, generation.members.len()), (2, 3), "no delay: all are there");
    assert!(g.joined(join_b).is_some() && g.joined(join_c).is_some());
    assert_eq!(g.heartbeat(&b, 1), Err(GroupFault::IllegalGeneration));
    assert_eq!(g.heartbeat(&c, 2), Ok(()));
    let other = Sync { group: "g".into(), member: c.clone(), generation: 2, ..Sync::default() };
    let other = Sync { protocol: Some("sticky".into()), ..other };
    let other = g.ask(Request::Sync(other));
    assert_eq!(g.synced(other), Some(Err(GroupFault::InconsistentGroupProtocol)));
    let sync = g.sync(&a, 2, &[(&a, "A")]);
    assert_eq!(g.synced(sync), Some(Ok("A".into())));
    let sync = g.sync(&c, 2, &[]);
    assert_eq!(g.synced(sync), Some(Ok("".into())), "the leader had nothing for it");
}

#[test]
fn who_does_not_rejoin_in_time_is_out() {
    let (mut g, a, b) = two();
    let (_, join_c) = g.enter(consumer());
    for _ in 0..20 {
        // It lives, but does not rejoin.
        assert_eq!(g.heartbeat(&b, 1), Err(GroupFault::RebalanceInProgress));
        let _ = g.heartbeat(&a, 1);
        g.pass_ms(2_950);
    }
    let join_a = g.join(Join { member: a, ..consumer() });
    g.pass_ms(1_100);
    let generation = g.joined(join_a).unwrap().generation.unwrap();
    assert_eq!((generation.id, generation.members.len()), (2, 2));
    assert!(g.joined(join_c).is_some());
    assert_eq!(g.heartbeat(&b, 1), Err(GroupFault::UnknownMemberId));
}

#[test]
fn silence_is_death_and_the_leader_is_replaced() {
    let (mut g, a, b) = two();
    g.pass_ms(9_000);
    assert_eq!(g.heartbeat(&b, 1), Ok(()));
    g.pass_ms(2_000);
    assert_eq!(g.heartbeat(&a, 1), Err(GroupFault::UnknownMemberId));
    assert_eq!(g.heartbeat(&b, 1), Err(GroupFault::RebalanceInProgress));
    let join_b = g.join(Join { member: b.clone(), ..consumer() });
    let generation = g.joined(join_b).unwrap().generation.unwrap();
    assert_eq!((generation.id, generation.leader), (2, b.clone()));
    let sync = g.sync(&b, 2, &[(&b, "all")]);
    assert_eq!(g.synced(sync), Some(Ok("all".into())));
    g.pass_ms(10_000);
    let empty = g.describe("g");
    assert_eq!((empty.state, empty.protocol_type.as_str()), ("Empty", "consumer"));
    assert!(empty.members.is_empty());
    let (_, again) = g.enter(consumer());
    g.pass_ms(3_000);
    assert_eq!(g.joined(again).unwrap().generation.unwrap().id, 4, "3 was the empty one");
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let (mut g, a, b) = two();
    for offset in 0..5 {
        g.pass_ms(5_000);
        assert_eq!(g.commit(&a, 1, offset), None);
        assert_eq!(g.heartbeat(&b, 1), Ok(()));
    }
    assert_eq!(g.heartbeat(&a, 1), Ok(()));
}

#[test]
fn who_was_given_an_id_and_never_came_is_not_waited_for_long() {
    let (mut g, a, b) = two();
    let lost = g.join(consumer());
    let lost = g.joined(lost).unwrap().member;
    let join_a = g.join(Join { member: a, ..consumer() });
    let join_b = g.join(Join { member: b, ..consumer() });
    assert_eq!(g.joined(join_a), None, "it may still come");
    g.pass_ms(10_000);
    assert_eq!(g.joined(join_a).unwrap().generation.unwrap().id, 2);
    assert!(g.joined(join_b).is_some());
    let late = g.join(Join { member: lost, ..consumer() });
    let late = g.joined(late).unwrap().generation;
    assert_eq!(late, Err(GroupFault::UnknownMemberId));
}

#[test]
fn who_does_not_fetch_its_assignment_in_time_is_out() {
    let mut g = alone();
    let (a, join_a) = g.enter(consumer());
    let (b, join_b) = g.enter(consumer());
    g.pass_ms(6_000);
    let leader = g.joined(join_a).unwrap().generation.unwrap().leader;
    g.joined(join_b).unwrap();
    assert_eq!(leader, a);
    let sync_b = g.sync(&b, 1, &[]);
    for _ in 0..20 {
        g.pass_ms(2_950);
        assert_eq!(g.heartbeat(&a, 1), Ok(()), "it lives");
    }
    g.pass_ms(1_100);
    assert_eq!(g.synced(sync_b), Some(Err(GroupFault::RebalanceInProgress)));
    assert_eq!(g.heartbeat(&a, 1), Err(GroupFault::UnknownMemberId));
    let join_b = g.join(Join { member: b.clone(), ..consumer() });
    assert_eq!(g.joined(join_b).unwrap().generation.unwrap().leader, b);
}

#[test]
fn joining_again_is_answered_from_the_generation_unless_something_changed() {
    let (mut g, a, b) = two();
    let same = g.join(Join { member: b.clone(), ..consumer() });
    assert_eq!(g.joined(same).unwrap().generation.unwrap().id, 1, "perhaps it heard nothing");
    assert_eq!(g.state(), "Stable");
    let leader = g.join(Join { member: a.clone(), ..consumer() });
    assert_eq!(g.joined(leader), None, "it knows why");
    assert_eq!(g.state(), "PreparingRebalance");
    let other = g.join(Join { member: b.clone(), ..consumer_of(&["t", "u"]) });
    assert_eq!(g.joined(leader).unwrap().generation.unwrap().id, 2);
    assert_eq!(g.joined(other).unwrap().generation.unwrap().id, 2);
    let again = g.join(Join { member: a.clone(), ..consumer() });
    let again = g.joined(again).unwrap().generation.unwrap();
    assert_eq!((again.id, again.members.len()), (2, 2), "not assigned yet: as it was told");
    let changed = g.join(Join { member: b, ..consumer() });
    assert_eq!(g.joined(changed), None);
    assert_eq!(g.state(), "PreparingRebalance");
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_past() {
    let mut g = alone();
    let join_a = g.join(fixed("i1"));
    let join_b = g.join(fixed("i2"));
    g.pass_ms(6_000);
    let (a, b) = (g.joined(join_a).unwrap(), g.joined(join_b).unwrap().member);
    let (a, leader) = (a.member, a.generation.unwrap().leader);
    let members = if leader == a { (a, b) } else { (b, a) };
    let (a, b) = members;
    let sync_a = g.sync(&a, 1, &[(&a, "A"), (&b, "B")]);
    assert_eq!(g.synced(sync_a), Some(Ok("A".into())));
    let (ia, ib) = (instance_of(&mut g, &a), instance_of(&mut g, &b));
    for (id, name, leads) in [(&b, &ib, false), (&a, &ia, true)] {
        let back = g.join(fixed(name));
        let back = g.joined(back).unwrap();
        let generation = back.generation.unwrap();
        assert_ne!(&back.member, id);
        assert_eq!((generation.id, generation.skip_assignment), (1, leads));
        assert_eq!(generation.members.len(), if leads { 2 } else { 0 });
        assert_eq!(g.state(), "Stable");
        let fenced = g.heartbeat_as(id, Some(name), 1);
        assert_eq!(fenced, Err(GroupFault::FencedInstanceId));
        assert_eq!(g.heartbeat(id, 1), Err(GroupFault::UnknownMemberId));
        assert_eq!(g.heartbeat_as(&back.member, Some(name), 1), Ok(()));
        let sync = g.sync(&back.member, 1, &[]);
        assert_eq!(g.synced(sync), Some(Ok(if leads { "A" } else { "B" }.into())));
        // It is remembered: KAFKA-10284.
        g.fail_over();
        assert_eq!(g.heartbeat_as(&back.member, Some(name), 1), Ok(()));
        assert_eq!(g.heartbeat_as(id, Some(name), 1), Err(GroupFault::FencedInstanceId));
    }
}

fn instance_of(g: &mut Alone, id: &str) -> String {
    let members = g.describe("g").members;
    members.into_iter().find(|member| member.id == id).unwrap().instance.unwrap()
}

#[test]
fn a_static_member_that_comes_back_during_a_rebalance_is_known_after_a_failover() {
    let mut g = alone();
    let join = g.join(fixed("i"));
    g.pass_ms(3_000);
    let old = g.joined(join).unwrap().member;
    let sync = g.sync(&old, 1, &[(&old, "A")]);
    assert_eq!(g.synced(sync), Some(Ok("A".into())));
    // Another one joins, and the static one dies: away, and out, or both at once.
    let (_, other) = g.enter(consumer());
    g.pass_ms(11_000);
    assert!(g.joined(other).is_some());
    let back = g.join(fixed("i"));
    g.fail_over();
    assert_eq!(g.joined(back), None, "of the rebalance nothing is known");
    let members = g.describe("g").members;
    assert_ne!(members[0].id, old, "but its new id is");
    assert_eq!(g.heartbeat_as(&old, Some("i"), 1), Err(GroupFault::FencedInstanceId));
    assert_eq!(g.heartbeat_as(&members[0].id.clone(), Some("i"), 1), Ok(()));
}

#[test]
fn an_old_client_that_leads_and_comes_back_is_not_told_that_it_leads() {
    let mut g = alone();
    let old = Join { may_skip_assignment: false, ..fixed("i") };
    let join = g.join(old.clone());
    g.pass_ms(3_000);
    let a = g.joined(join).unwrap().member;
    let _ = g.sync(&a, 1, &[(&a, "A")]);
    let back = g.join(old);
    let generation = g.joined(back).unwrap().generation.unwrap();
    assert_eq!((generation.leader, generation.skip_assignment), (a, false));
    assert!(generation.members.is_empty());
}

#[test]
fn a_static_member_that_is_away_keeps_its_place_for_its_session() {
    let mut g = alone();
    let patient = |instance: &str| Join { session_ms: 120_000, ..fixed(instance) };
    let join_a = g.join(patient("i1"));
    let join_b = g.join(patient("i2"));
    g.pass_ms(6_000);
    let a = g.joined(join_a).unwrap();
    let (a, leader) = (a.member, a.generation.unwrap().leader);
    let b = g.joined(join_b).unwrap().member;
    let give = [(&*a, "A"), (&*b, "B")];
    let (sync_a, sync_b) = (g.sync(&a, 1, &give), g.sync(&b, 1, &give));
    assert!(g.synced(sync_a).is_some() && g.synced(sync_b).is_some());
    let away = if leader == a { &b } else { &a };
    // The leader calls a rebalance; the other one does not come.
    let instance = instance_of(&mut g, &leader);
    let join = g.join(Join { member: leader.clone(), ..patient(&instance) });
    g.pass_ms(60_000);
    let generation = g.joined(join).unwrap().generation.unwrap();
    assert_eq!((generation.id, generation.members.len()), (2, 2), "its place is kept");
    let sync = g.sync(&leader, 2, &[(&leader, "A"), (away, "B")]);
    assert_eq!(g.synced(sync), Some(Ok("A".into())));
    let sync = g.sync(away, 2, &[]);
    assert_eq!(g.synced(sync), Some(Ok("B".into())), "as a member it may ask, though it was away");
}

#[test]
fn a_replaced_static_member_that_waits_is_fenced() {
    let mut g = alone();
    let first = g.join(fixed("i"));
    let second = g.join(fixed("i"));
    let fenced = g.joined(first).unwrap();
    assert_eq!(fenced.generation, Err(GroupFault::FencedInstanceId));
    // Others keep coming, so that the wait is longer than its session.
    for _ in 0..5 {
        g.pass_ms(2_900);
        g.enter(consumer());
    }
    assert_eq!(g.joined(second), None, "it waits, and is excused");
    let gone: Vec<Leaver> = g
        .describe("g")
        .members
        .iter()
        .filter(|m| m.instance.is_none())
        .map(|m| Leaver { member: m.id.clone(), ..Leaver::default() })
        .collect();
    assert_eq!(g.leave(gone), [None; 5]);
    g.pass_ms(6_000);
    assert_eq!(g.joined(second).unwrap().generation.unwrap().members.len(), 1);
    let third = g.join(fixed("i"));
    assert_eq!(g.state(), "CompletingRebalance", "alone, it is at once in the next generation");
    assert_eq!(g.joined(third).unwrap().generation.unwrap().id, 2);
}

#[test]
fn members_leave_one_by_one_or_many_at_once() {
    let (mut g, a, b) = two();
    let gone = |id: &str| Leaver { member: id.into(), ..Leaver::default() };
    let faults = g.leave(vec![gone("nobody"), gone(&b)]);
    assert_eq!(faults, [Some(GroupFault::UnknownMemberId), None]);
    assert_eq!(g.heartbeat(&a, 1), Err(GroupFault::RebalanceInProgress));
    assert_eq!(g.leave(vec![gone(&a)]), [None]);
    assert_eq!(g.state(), "Empty");
    let pending = g.join(consumer());
    let pending = g.joined(pending).unwrap().member;
    assert_eq!(g.leave(vec![gone(&pending)]), [None]);
    let join = g.join(fixed("i"));
    let admin = Leaver { instance: Some("i".into()), ..Leaver::default() };
    assert_eq!(g.leave(vec![admin.clone(), admin]), [None, Some(GroupFault::UnknownMemberId)]);
    let told = g.joined(join).unwrap().generation;
    assert_eq!(told, Err(GroupFault::UnknownMemberId), "it waited to join");
    assert_eq!(g.leave(vec![Leaver::default()]), [Some(GroupFault::UnknownMemberId)]);
}

#[test]
fn a_full_group_turns_others_away() {
    let mut g = Alone::new(GroupConfig { members_max: 2, ..GroupConfig::default() });
    let full = Err(GroupFault::GroupMaxSizeReached);
    let (_, a) = g.enter(consumer());
    let (_, b) = g.enter(consumer());
    let c = g.join(consumer());
    assert_eq!(g.joined(c).unwrap().generation, full);
    g.pass_ms(6_000);
    assert!(g.joined(a).unwrap().generation.is_ok() && g.joined(b).unwrap().generation.is_ok());
    let c = g.join(consumer());
    assert_eq!(g.joined(c).unwrap().generation, full);
}

#[test]
fn a_group_that_became_too_large_shrinks_when_it_is_taken_up() {
    let (mut g, a, b) = two();
    g.config.members_max = 1;
    g.fail_over();
    assert_eq!(g.state(), "PreparingRebalance");
    let join_a = g.join(Join { member: a, ..consumer() });
    let join_b = g.join(Join { member: b, ..consumer() });
    let turned_away = g.joined(join_b).unwrap().generation;
    assert_eq!(turned_away, Err(GroupFault::GroupMaxSizeReached));
    g.pass_ms(60_000);
    assert_eq!(g.joined(join_a).unwrap().generation.unwrap().members.len(), 1);
}

#[test]
fn members_go_on_after_a_failover_and_a_rebalance_begins_anew() {
    let (mut g, a, b) = two();
    assert_eq!(g.commit(&a, 1, 5), None);
    let (_, _) = g.enter(consumer());
    g.fail_over();
    assert_eq!(g.state(), "Stable", "of the rebalance nothing is known");
    assert_eq!(g.heartbeat(&a, 1), Ok(()));
    assert_eq!(g.fetch("t", 0), Some(5));
    let sync = g.sync(&b, 1, &[]);
    assert_eq!(g.synced(sync), Some(Ok("B".into())));
    g.pass_ms(10_100);
    assert_eq!(g.state(), "Empty", "sessions began with the failover");
}

#[test]
fn commits_are_fenced_by_member_and_generation() {
    let (mut g, a, _) = two();
    assert_eq!(g.commit(&a, 1, 10), None);
    assert_eq!(g.commit(&a, 0, 11), Some(GroupFault::IllegalGeneration));
    assert_eq!(g.commit(&a, -1, 11), Some(GroupFault::IllegalGeneration));
    assert_eq!(g.commit("x", 1, 11), Some(GroupFault::UnknownMemberId));
    assert_eq!(g.commit("", -1, 11), Some(GroupFault::UnknownMemberId), "not beside members");
    let elsewhere = CommitOffsets { group: "h".into(), generation: 1, ..CommitOffsets::default() };
    assert_eq!(g.commit_with(elsewhere), Some(GroupFault::GroupIdNotFound));
    assert_eq!(g.fetch("t", 0), Some(10));
    let _ = g.join(Join { member: a.clone(), ..consumer() });
    assert_eq!(g.commit(&a, 1, 12), None, "while it rejoins it may finish its work");
}

#[test]
fn before_its_assignment_a_member_cannot_commit() {
    let mut g = alone();
    let (a, join) = g.enter(consumer());
    g.pass_ms(3_000);
    g.joined(join).unwrap();
    assert_eq!(g.commit(&a, 1, 1), Some(GroupFault::RebalanceInProgress));
}

#[test]
fn who_uses_no_membership_commits_to_a_group_without_members() {
    let mut g = alone();
    assert_eq!(g.commit("", -1, 3), None);
    let simple = g.describe("g");
    assert_eq!((simple.state, simple.protocol_type.as_str()), ("Empty", ""));
    assert_eq!(g.fetch("t", 0), Some(3));
    assert_eq!((g.fetch("t", 1), g.fetch("u", 0)), (None, None));
    assert_eq!(g.commit("x", 1, 4), Some(GroupFault::UnknownMemberId));
    let all = Request::FetchOffsets(vec![
        FetchOffsets { group: "g".into(), ..FetchOffsets::default() },
        FetchOffsets { group: "unheard".into(), ..FetchOffsets::default() },
    ]);
    let Reply::Offsets(all) = g.now(all) else { panic!() };
    let of_g = all[0].topics.as_ref().unwrap();
    assert_eq!((of_g.len(), of_g[0].0.as_str(), of_g[0].1[0].partition), (1, "t", 0));
    assert_eq!(all[1].topics, Ok(vec![]));
    g.fail_over();
    assert_eq!(g.fetch("t", 0), Some(3));
}

#[test]
fn metadata_and_commits_have_their_limits() {
    let mut g = alone();
    let commit = |metadata: &str, count: usize| CommitOffsets {
        group: "g".into(),
        generation: -1,
        topics: vec![(
            "t".into(),
            vec![OffsetOf { metadata: Some(metadata.into()), ..OffsetOf::default() }; count],
        )],
        ..CommitOffsets::default()
    };
    assert_eq!(g.commit_with(commit(&"é".repeat(4096), 1)), None, "characters are counted");
    let too_large = g.commit_with(commit(&"é".repeat(4097), 1));
    assert_eq!(too_large, Some(GroupFault::OffsetMetadataTooLarge));
    assert_eq!(g.log.len(), 1);
    let too_many = g.commit_with(commit(&"x".repeat(4000), 300));
    assert_eq!(too_many, Some(GroupFault::InvalidCommitOffsetSize));
    assert_eq!(g.log.len(), 1, "all or none");
}

#[test]
fn offsets_are_deleted_unless_they_are_in_use() {
    let (mut g, a, b) = two();
    assert_eq!(g.commit(&a, 1, 1), None);
    let mut other =
        CommitOffsets { group: "g".into(), member: a, generation: 1, ..CommitOffsets::default() };
    other.topics = vec![("old".into(), vec![OffsetOf::default()])];
    assert_eq!(g.commit_with(other), None);
    let delete = |g: &mut Alone, group: &str| {
        let topics = vec![("t".into(), vec![0]), ("old".into(), vec![0, 1])];
        match g.now(Request::DeleteOffsets(DeleteOffsets { group: group.into(), topics })) {
            Reply::OffsetsDeleted(deleted) => deleted,
            other => panic!("{other:?}"),
        }
    };
    let in_use = Some(GroupFault::GroupSubscribedToTopic);
    let expected: Vec<Outcomes> =
        vec![("t".into(), vec![(0, in_use)]), ("old".into(), vec![(0, None), (1, None)])];
    assert_eq!(delete(&mut g, "g"), Ok(expected));
    assert_eq!((g.fetch("t", 0), g.fetch("old", 0)), (Some(1), None));
    assert_eq!(delete(&mut g, "h"), Err(GroupFault::GroupIdNotFound));
    assert_eq!(g.delete("g"), Some(GroupFault::NonEmptyGroup));
    assert_eq!(g.heartbeat(&b, 1), Ok(()));
    g.pass_ms(11_000);
    assert_eq!(g.delete("g"), None);
    assert_eq!((g.state(), g.fetch("t", 0)), ("Dead", None));
    assert_eq!(g.delete("g"), Some(GroupFault::GroupIdNotFound));
    g.fail_over();
    assert_eq!((g.state(), g.fetch("t", 0)), ("Dead", None));
}

#[test]
fn offsets_of_other_kinds_of_members_are_not_deleted_under_them() {
    let mut g = alone();
    let (_, _) = g.enter(Join { protocol_type: "connect".into(), ..consumer() });
    let delete = DeleteOffsets { group: "g".into(), topics: vec![("t".into(), vec![0])] };
    let deleted = g.now(Request::DeleteOffsets(delete));
    assert_eq!(deleted, Reply::OffsetsDeleted(Err(GroupFault::NonEmptyGroup)));
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn offsets_expire_a_week_after_the_group_became_empty() {
    let (mut g, a, b) = two();
    assert_eq!(g.commit(&a, 1, 1), None);
    for _ in 0..8 * 24 * 3600 / 9 {
        g.pass_ms(9_000);
        assert!(g.heartbeat(&a, 1).is_ok() && g.heartbeat(&b, 1).is_ok());
    }
    assert_eq!(g.fetch("t", 0), Some(1), "in use for eight days");
    g.pass(6 * DAY);
    assert_eq!((g.state(), g.fetch("t", 0)), ("Empty", Some(1)), "unused for six");
    g.pass(DAY + Duration::from_secs(11));
    g.pass_ms(600_000);
    assert_eq!((g.state(), g.fetch("t", 0)), ("Dead", None));
}

#[test]
fn offsets_of_topics_that_nobody_consumes_any_more_expire_under_a_living_group() {
    let (mut g, a, b) = two();
    let mut other = CommitOffsets {
        group: "g".into(),
        member: a.clone(),
        generation: 1,
        ..CommitOffsets::default()
    };
    other.topics = vec![("old".into(), vec![OffsetOf::default()])];
    assert_eq!(g.commit_with(other), None);
    assert_eq!(g.commit(&a, 1, 1), None);
    for _ in 0..8 * 24 * 3600 / 9 {
        g.pass_ms(9_000);
        assert!(g.heartbeat(&a, 1).is_ok() && g.heartbeat(&b, 1).is_ok());
    }
    assert_eq!((g.fetch("t", 0), g.fetch("old", 0)), (Some(1), None));
}

#[test]
fn an_offset_may_bring_its_own_end() {
    let mut g = alone();
    let commit = CommitOffsets {
        group: "g".into(),
        generation: -1,
        retention: Some(DAY),
        topics: vec![("t".into(), vec![OffsetOf::default()])],
        ..CommitOffsets::default()
    };
    assert_eq!(g.commit_with(commit), None);
    g.fail_over();
    g.pass(DAY - Duration::from_secs(1));
    assert_eq!(g.fetch("t", 0), Some(0));
    g.pass(Duration::from_secs(601));
    assert_eq!(g.fetch("t", 0), None);
}

#[test]
fn a_deleted_topic_takes_its_offsets_along_in_steps() {
    let mut g = alone();
    let mut commit =
        CommitOffsets { group: "g".into(), generation: -1, ..CommitOffsets::default() };
    let all =
        |count: i32| (0..count).map(|partition| OffsetOf { partition, ..OffsetOf::default() });
    commit.topics = vec![("t".into(), all(2_500).collect()), ("u".into(), all(1).collect())];
    assert_eq!(g.commit_with(commit), None);
    let reply = g.now(Request::ForgetTopics(vec!["t".into(), "unheard".into()]));
    assert_eq!(reply, Reply::Forgotten);
    g.pass_ms(0);
    assert_eq!(g.hard.offsets.len(), 1_501, "a bounded step at a time");
    assert_eq!(g.commit("", -1, 9), None, "the topic is there again");
    g.pass_ms(1_000);
    assert_eq!((g.fetch("t", 7), g.fetch("u", 0)), (None, Some(0)));
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let (mut g, _, _) = two();
    let simple = CommitOffsets { group: "s".into(), generation: -1, ..CommitOffsets::default() };
    let topics = vec![("t".into(), vec![OffsetOf::default()])];
    assert_eq!(g.commit_with(CommitOffsets { topics, ..simple }), None);
    let mut list = |states: &[&str], types: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let list = List { states: owned(states), types: owned(types) };
        let Reply::Listed(listed) = g.now(Request::List(list)) else { panic!() };
        listed.into_iter().map(|one| (one.group, one.state, one.protocol_type)).collect::<Vec<_>>()
    };
    let (stable, empty) =
        (("g".into(), "Stable", "consumer".into()), ("s".into(), "Empty", "".into()));
    assert_eq!(list(&[], &[]), [stable.clone(), empty.clone()]);
    assert_eq!(list(&["stable"], &["Classic"]), [stable]);
    assert_eq!(list(&["Empty", "Dead"], &[]), [empty]);
    assert_eq!(list(&[], &["consumer"]), []);
}

#[test]
fn members_are_described_with_what_they_have_once_it_is_settled() {
    let (mut g, a, _) = two();
    let described = g.describe("g");
    assert_eq!((described.protocol.as_str(), described.members.len()), ("range", 2));
    let first = described.members.iter().find(|member| member.id == a).unwrap();
    assert_eq!((first.assignment.as_slice(), first.client_id.as_str()), (b"A".as_slice(), "c"));
    assert_eq!(first.metadata, subscription(&["t"]));
    let _ = g.enter(consumer());
    let described = g.describe("g");
    assert_eq!((described.state, described.protocol.as_str()), ("PreparingRebalance", ""));
    assert!(described.members.iter().all(|member| member.assignment.is_empty()));
}

#[test]
fn assignments_that_one_batch_does_not_hold_are_refused_and_the_group_goes_on() {
    // The leader assigns as many bytes; what it is told, and the other member.
    let assigned = |bytes: usize| {
        let (mut g, a, b) = two();
        let join_a = g.join(Join { member: a.clone(), ..consumer_of(&["t", "u"]) });
        let join_b = g.join(Join { member: b.clone(), ..consumer() });
        assert_eq!(g.joined(join_a).unwrap().generation.unwrap().id, 2);
        assert!(g.joined(join_b).is_some());
        let sync_b = g.sync(&b, 2, &[]);
        let large = "x".repeat(bytes);
        let sync_a = g.sync(&a, 2, &[(&a, &large), (&b, "B")]);
        let told = (g.synced(sync_a).unwrap(), g.synced(sync_b).unwrap());
        (g, a, b, told)
    };
    // The largest that fits.
    let (mut fits, mut exceeds) = (0, 2 << 20);
    while exceeds - fits > 1 {
        let middle = (fits + exceeds) / 2;
        match assigned(middle).3.0 {
            Ok(_) => fits = middle,
            Err(_) => exceeds = middle,
        }
    }
    let (g, _, _, told) = assigned(fits);
    assert_eq!(told, (Ok("x".repeat(fits)), Ok("B".into())));
    let last = g.log.last().unwrap();
    let written = last.0.as_ref().unwrap().len() + last.1.as_ref().unwrap().len();
    let most = GroupConfig::default().records_bytes_max;
    assert!((most * 99 / 100..most).contains(&written), "{written} of {most} bytes");

    let (mut g, a, b, told) = assigned(exceeds);
    assert_eq!(told, (Err(GroupFault::GroupTooLarge), Err(GroupFault::GroupTooLarge)));
    assert_eq!(g.state(), "PreparingRebalance");
    let join_a = g.join(Join { member: a.clone(), ..consumer() });
    let join_b = g.join(Join { member: b.clone(), ..consumer() });
    let generation = g.joined(join_a).unwrap().generation.unwrap();
    assert_eq!((generation.id, g.joined(join_b).is_some()), (3, true));
    let sync_a = g.sync(&a, 3, &[(&a, "A"), (&b, "B")]);
    assert_eq!(g.synced(sync_a), Some(Ok("A".into())), "with less it goes on");
}
