//! The groups of a run: what their members go by, and what is expected of them in the end.

use std::rc::Rc;
use std::time::Duration;

use engine::env::sim::{Node, Random};
use engine::wait::Watch;
use net::wire::ErrorCode;
use net::wire::consumer_group_describe::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
};
use net::wire::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};

use crate::consumer::list;
use crate::ledger::Ledger;
use crate::line::{Client, Come, gone};
use crate::oracle::{Invariant, Kept, broken};
use crate::seat::Seat;
use crate::world::{GroupSummary, HEALTHY_MAX, SpawnClient, World, places};
use crate::{classic, modern};

/// How often members say that they live.
pub const HEARTBEAT: Duration = Duration::from_millis(200);
/// How long a target assignment of the new protocol stands at least.
pub const ASSIGNMENT_INTERVAL: Duration = Duration::from_millis(100);
/// How long they may take to rejoin, or to give something up.
pub const REBALANCE: Duration = Duration::from_millis(2_500);
/// How long they wait for an answer that waits for other members.
pub const MAX_WAIT: Duration = Duration::from_millis(4_000);

/// Numbers that are the same for all nodes and members of a run.
#[derive(Clone, Debug)]
pub struct GroupNumbers {
    /// Partitions of the topic in which groups are kept.
    pub partitions: i32,
    /// How long members may be silent.
    pub session: Duration,
    /// How long an empty classic group waits for more members.
    pub delay: Duration,
    /// Members of each group.
    pub members: u32,
}

impl GroupNumbers {
    /// Short ones, so that members are taken for dead while something else goes wrong.
    pub fn draw(random: &Random) -> GroupNumbers {
        GroupNumbers {
            partitions: random.between(1, 3) as i32,
            session: Duration::from_millis(random.between(900, 1_800)),
            delay: Duration::from_millis(random.between(0, 200)),
            members: random.between(2, 3) as u32,
        }
    }
}

/// What members do that they should not.
pub enum Mishap {
    /// It leaves, and somebody else comes later.
    Leaves(Duration),
    /// It ends without a word, and somebody else comes later.
    Dies(Duration),
    /// It does nothing for so long.
    Dawdles(Duration),
}

/// Whether something befalls a member now; asked after each of its turns.
pub fn mishap(client: &Client) -> Option<Mishap> {
    if !client.random.chance(1, 40) {
        return None;
    }
    Some(match client.random.below(3) {
        0 => Mishap::Leaves(between(client, 50, 1_000)),
        1 => Mishap::Dies(between(client, 50, 2_500)),
        _ => Mishap::Dawdles(between(client, 300, 3_000)),
    })
}

/// Some time between, in milliseconds.
pub fn between(client: &Client, low: u64, high: u64) -> Duration {
    Duration::from_millis(client.random.between(low, high))
}

/// The groups of a run.
pub struct Groups {
    numbers: GroupNumbers,
    nodes: Vec<Node>,
    ledgers: Vec<Rc<Ledger>>,
}

impl Groups {
    pub fn new(
        numbers: GroupNumbers,
        node: impl Fn() -> Node,
        ledger: impl Fn(&'static str, bool) -> Ledger,
    ) -> Groups {
        let nodes = (0..2 * numbers.members + 1).map(|_| node()).collect();
        let ledgers = vec![Rc::new(ledger("old", true)), Rc::new(ledger("new", false))];
        Groups { numbers, nodes, ledgers }
    }

    /// Lets all members come.
    pub fn begin(&self, world: &World, calm: &Watch, finish: &Watch) {
        for (at, ledger) in self.ledgers.iter().enumerate() {
            for number in 0..self.numbers.members {
                let index = at as u32 * self.numbers.members + number;
                let name = format!("{}-{number}", ledger.group);
                let member = world.member_on(&self.nodes[index as usize], 100 + index, &name);
                let (env, seat) = (member.client.env.clone(), Seat::new(member, ledger.clone()));
                let (calm, finish) = (calm.clone(), finish.clone());
                match ledger.is_classic() {
                    true => env.spawn_client(classic::attend(Rc::new(seat), calm, finish)),
                    false => env.spawn_client(modern::attend(seat, calm, finish)),
                }
            }
        }
    }

    /// Judges what could not be before it was known who led when.
    pub fn judge(&self) -> Kept {
        self.ledgers.iter().try_for_each(|ledger| ledger.judge())
    }

    /// What they were like.
    pub fn summary(&self) -> GroupSummary {
        let sum = |of: fn(&Ledger) -> u64| self.ledgers.iter().map(|ledger| of(ledger)).sum();
        GroupSummary {
            failovers: sum(|ledger| ledger.failovers.get()),
            commits: sum(|ledger| ledger.commits.get()),
            assignments: sum(|ledger| ledger.assignments.get()),
            fenced: sum(|ledger| ledger.fenced.get()),
        }
    }

    /// Waits until each group is stable, and has read and committed all that there is.
    pub async fn settle(&self, world: &World) -> Kept {
        for (at, ledger) in self.ledgers.iter().enumerate() {
            let node = self.nodes.last().expect("one is nobody's");
            let number = 200 + at as u32;
            let member = world.member_on(node, number, &format!("about-{}", ledger.group));
            let seat = Seat::new(member, ledger.clone());
            let until = world.sim.now().after(HEALTHY_MAX);
            loop {
                let left = match self.is_settled(&seat).await {
                    Ok(None) => break,
                    Ok(Some(left)) => left,
                    Err(stop) => {
                        seat.lose();
                        if !seat.member.again(&stop).await {
                            return world.oracle.verdict();
                        }
                        continue;
                    }
                };
                world.oracle.verdict()?;
                if world.sim.now() > until {
                    return broken(Invariant::GroupsSettle, format!("{}: {left}", ledger.group));
                }
                seat.member.client.sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// What is still to be done; `None`: nothing.
    async fn is_settled(&self, seat: &Seat) -> Come<Option<String>> {
        let told = match seat.offsets(None, &Seat::all()).await? {
            Ok(told) => told,
            Err(error) => return gone(format!("no offsets: {error}")),
        };
        for place in places() {
            let end = list(&seat.member, place).await? as u64;
            let committed = told.iter().find(|(of, _)| *of == place).map_or(0, |(_, at)| at.offset);
            if committed != end {
                return Ok(Some(format!("{committed} of {end} of {place:?} are committed")));
            }
        }
        let (error, state, members) = match seat.ledger.is_classic() {
            true => describe_classic(seat).await?,
            false => describe_modern(seat).await?,
        };
        match error {
            ErrorCode::None if state != "Stable" => Ok(Some(format!("its state is {state}"))),
            ErrorCode::None if members != self.numbers.members as usize => {
                Ok(Some(format!("it has {members} members")))
            }
            ErrorCode::None => Ok(None),
            error if error.is_retriable() => gone(format!("not described: {error}")),
            error => seat.unexpected("a description", error),
        }
    }
}

async fn describe_classic(seat: &Seat) -> Come<(ErrorCode, String, usize)> {
    let coordinator = seat.coordinator().await?;
    let groups = [seat.ledger.group];
    let message = DescribeGroupsRequest { groups: (&groups).into(), ..Default::default() };
    let answer = coordinator.line.call(&message, 6).await?;
    let response: DescribeGroupsResponse<'_> = answer.read()?;
    let Some(group) = response.groups.first() else { return gone("nothing was answered") };
    Ok((group.error_code, group.group_state.into_owned(), group.members.len()))
}

async fn describe_modern(seat: &Seat) -> Come<(ErrorCode, String, usize)> {
    let coordinator = seat.coordinator().await?;
    let groups = [seat.ledger.group];
    let message =
        ConsumerGroupDescribeRequest { group_ids: (&groups).into(), ..Default::default() };
    let answer = coordinator.line.call(&message, 1).await?;
    let response: ConsumerGroupDescribeResponse<'_> = answer.read()?;
    let Some(group) = response.groups.first() else { return gone("nothing was answered") };
    Ok((group.error_code, group.group_state.into_owned(), group.members.len()))
}
