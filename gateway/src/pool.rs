//! A bounded set of connections that makes room by itself: a full pool ends one idle member, chosen at random from the
//! source that holds most.
//!
//! Sources are nested ([`Origin::networks`]): the fullest /48 or /24 is found first, then the fullest /56 in it, then the
//! fullest origin. A source with few members therefore keeps them, however many connections others open.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use runtime::origin::{Network, Origin};
use tokio::sync::Notify;

/// A bounded set of connections. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    state: Mutex<State>,
}

/// Most members, and who yields when they are reached.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub members: usize,
    /// Members of one origin.
    pub per_origin: usize,
    pub yields: Yields,
}

/// Who makes room in a full pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Yields {
    /// An idle member, also one from the newcomer's own source.
    Member,
    /// An idle member of a source that holds more than the newcomer's. Otherwise the newcomer is refused, so that equals
    /// do not end each other's membership in turns.
    MemberOfLarger,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    members: usize,
    /// Members of each origin, idle and working.
    of_origin: HashMap<Origin, usize>,
    idle: Idle,
}

/// A connection's membership. Ends when this and all [`Work`] of it are dropped.
#[derive(Debug)]
pub struct Member(Arc<Membership>);

#[derive(Debug)]
struct Membership {
    pool: Pool,
    origin: Origin,
    id: u64,
    ending: Arc<Ending>,
}

/// Says that a member was ended to make room.
#[derive(Debug, Default)]
struct Ending {
    ended: AtomicBool,
    notify: Notify,
}

impl Pool {
    pub fn new(bounds: Bounds) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Shared { bounds, state }))
    }

    /// Adds an idle member; ends another one if need be. Returns `None` where nobody can make room.
    pub fn enter(&self, origin: Origin) -> Option<Member> {
        let bounds = self.0.bounds;
        let mut state = self.lock();
        let own = state.of_origin.get(&origin).copied().unwrap_or_default();
        if own >= bounds.per_origin {
            if bounds.yields == Yields::MemberOfLarger {
                return None;
            }
            let id = state.idle.random_of(origin)?;
            state.end(origin, id);
        } else if state.members >= bounds.members {
            let fullest = state.idle.fullest()?;
            if bounds.yields == Yields::MemberOfLarger && !state.idle.is_larger(fullest, origin) {
                return None;
            }
            let id = state.idle.random_of(fullest)?;
            state.end(fullest, id);
        }
        let id = state.next;
        state.next += 1;
        state.members += 1;
        *state.of_origin.entry(origin).or_default() += 1;
        let ending = Arc::<Ending>::default();
        state.idle.insert(origin, id, Arc::clone(&ending));
        Some(Member(Arc::new(Membership {
            pool: self.clone(),
            origin,
            id,
            ending,
        })))
    }

    /// Ends one idle member of the source that holds most, if there is one.
    pub fn shed(&self) -> bool {
        let mut state = self.lock();
        let Some(fullest) = state.idle.fullest() else {
            return false;
        };
        let Some(id) = state.idle.random_of(fullest) else {
            return false;
        };
        state.end(fullest, id);
        true
    }

    /// Members per thousand of the bound.
    pub fn fill(&self) -> usize {
        self.lock().members * 1000 / self.0.bounds.members.max(1)
    }

    /// Poisoning is harmless: no critical section can panic half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends an idle member. The place is free at once; the connection closes as soon as its task runs.
    fn end(&mut self, origin: Origin, id: u64) {
        if let Some(ending) = self.idle.remove(origin, id) {
            ending.ended.store(true, Ordering::Release);
            ending.notify.notify_waiters();
            self.leave(origin);
        }
    }

    fn leave(&mut self, origin: Origin) {
        self.members -= 1;
        if let Some(count) = self.of_origin.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.of_origin.remove(&origin);
            }
        }
    }
}

impl Member {
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// Returns when the pool ended this membership.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let ending = Arc::clone(&self.0.ending);
        async move {
            let notified = ending.notify.notified();
            // Created before the look, so that an end in between is noticed.
            if !ending.ended.load(Ordering::Acquire) {
                notified.await;
            }
        }
    }

    pub fn has_ended(&self) -> bool {
        self.0.ending.ended.load(Ordering::Acquire)
    }

    /// Keeps the member from being ended while the result lives. `None` where it was ended already, or works already.
    pub fn work(&self) -> Option<Work> {
        let Membership {
            pool, origin, id, ..
        } = &*self.0;
        pool.lock().idle.remove(*origin, *id)?;
        Some(Work(Arc::clone(&self.0)))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        if state.idle.remove(self.origin, self.id).is_some() {
            state.leave(self.origin);
        }
    }
}

/// Work that a member does: until it is over, the member is not idle.
#[derive(Debug)]
pub struct Work(Arc<Membership>);

impl Drop for Work {
    fn drop(&mut self) {
        let Membership {
            pool,
            origin,
            id,
            ending,
        } = &*self.0;
        pool.lock().idle.insert(*origin, *id, Arc::clone(ending));
    }
}

/// Members that do nothing, and which sources they come from.
#[derive(Debug, Default)]
struct Idle {
    members: HashMap<Origin, Vec<(u64, Arc<Ending>)>>,
    /// Members of each network, with a random number that orders networks of equal size.
    sizes: HashMap<(usize, Network), (usize, u32)>,
    /// Networks in each wider network, by size. The level and the wider network are the key.
    order: HashMap<(usize, Option<Network>), BTreeSet<(usize, u32, Network)>>,
    origins: HashMap<Network, Origin>,
}

impl Idle {
    fn insert(&mut self, origin: Origin, id: u64, ending: Arc<Ending>) {
        self.members.entry(origin).or_default().push((id, ending));
        self.resize(origin, |size| size + 1);
    }

    fn remove(&mut self, origin: Origin, id: u64) -> Option<Arc<Ending>> {
        let members = self.members.get_mut(&origin)?;
        let index = members.iter().position(|(other, _)| *other == id)?;
        let (_, ending) = members.swap_remove(index);
        if members.is_empty() {
            self.members.remove(&origin);
        }
        self.resize(origin, |size| size - 1);
        Some(ending)
    }

    fn resize(&mut self, origin: Origin, change: impl Fn(usize) -> usize) {
        let mut wider = None;
        for (level, network) in origin.networks().into_iter().enumerate() {
            let (size, salt) = self
                .sizes
                .get(&(level, network))
                .copied()
                .unwrap_or_else(|| (0, rand::random()));
            let order = self.order.entry((level, wider)).or_default();
            order.remove(&(size, salt, network));
            let size = change(size);
            if size > 0 {
                order.insert((size, salt, network));
                self.sizes.insert((level, network), (size, salt));
            } else {
                self.sizes.remove(&(level, network));
                if order.is_empty() {
                    self.order.remove(&(level, wider));
                }
            }
            wider = Some(network);
        }
        let [.., own] = origin.networks();
        if self.members.contains_key(&origin) {
            self.origins.insert(own, origin);
        } else {
            self.origins.remove(&own);
        }
    }

    /// The fullest origin of the fullest network.
    fn fullest(&self) -> Option<Origin> {
        let mut wider = None;
        for level in 0..3 {
            let (_, _, network) = self.order.get(&(level, wider))?.last()?;
            wider = Some(*network);
        }
        self.origins.get(&wider?).copied()
    }

    /// Whether one origin, or a network of it that does not contain the other, has at least two members more.
    fn is_larger(&self, one: Origin, other: Origin) -> bool {
        let size = |level, network| {
            self.sizes
                .get(&(level, network))
                .map_or(0, |(size, _)| *size)
        };
        let networks = one.networks().into_iter().zip(other.networks());
        networks
            .enumerate()
            .find(|(_, (one, other))| one != other)
            .is_some_and(|(level, (one, other))| size(level, one) > size(level, other) + 1)
    }

    fn random_of(&self, origin: Origin) -> Option<u64> {
        let members = self.members.get(&origin)?;
        let (id, _) = members.get(rand::random_range(0..members.len()))?;
        Some(*id)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures::poll;

    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn pool(members: usize, per_origin: usize, yields: Yields) -> Pool {
        Pool::new(Bounds {
            members,
            per_origin,
            yields,
        })
    }

    fn alive(members: &[Member]) -> usize {
        members.iter().filter(|member| !member.has_ended()).count()
    }

    #[test]
    fn a_newcomer_gets_a_place_and_the_source_that_holds_most_yields() {
        let pool = pool(16, 16, Yields::Member);
        let modest = pool.enter(origin("192.0.2.1")).unwrap();
        let greedy: Vec<_> = (0..100)
            .map(|_| pool.enter(origin("192.0.2.2")).unwrap())
            .collect();
        let others: Vec<_> = (0..8)
            .map(|last| pool.enter(origin(&format!("198.51.100.{last}"))).unwrap())
            .collect();
        assert!(!modest.has_ended());
        // Eight of one network, and the fullest address of the other network has what is left.
        assert_eq!((alive(&others), alive(&greedy)), (8, 7));
        assert_eq!(pool.fill(), 1000);
        drop((modest, greedy, others));
        let state = pool.lock();
        assert_eq!(state.members, 0);
        assert!(state.of_origin.is_empty() && state.idle.members.is_empty());
        assert!(state.idle.sizes.is_empty() && state.idle.order.is_empty());
        assert!(state.idle.origins.is_empty());
    }

    /// Nine of the pool's places for one, whatever the networks: otherwise a /48 would count as 65,536 sources.
    #[test]
    fn many_origins_of_one_v6_network_are_one_source() {
        for attacker in ["2001:db8:1", "2001:db8:1:1"] {
            let pool = pool(32, 32, Yields::Member);
            let modest: Vec<_> = (0..4)
                .map(|_| pool.enter(origin("2001:db8:2:3::1")).unwrap())
                .collect();
            let crowd: Vec<_> = (0..=255)
                .map(|n| {
                    let text = match attacker.len() {
                        10 => format!("{attacker}:{n:x}::1"),
                        _ => format!("{attacker}{n:02x}::1"),
                    };
                    pool.enter(origin(&text)).unwrap()
                })
                .collect();
            assert_eq!((alive(&modest), alive(&crowd)), (4, 28), "{attacker}");
        }
    }

    #[test]
    fn a_victim_is_drawn_at_random() {
        let mut survivors = [0; 8];
        for _ in 0..200 {
            let pool = pool(8, 8, Yields::Member);
            let members: Vec<_> = (0..9)
                .map(|_| pool.enter(origin("192.0.2.1")).unwrap())
                .collect();
            for (index, member) in members[..8].iter().enumerate() {
                survivors[index] += usize::from(!member.has_ended());
            }
        }
        assert!(
            survivors.iter().all(|count| (100..200).contains(count)),
            "{survivors:?}"
        );
    }

    #[test]
    fn a_member_that_works_is_not_ended() {
        let pool = pool(2, 2, Yields::Member);
        let (first, second) = (
            pool.enter(origin("192.0.2.1")).unwrap(),
            pool.enter(origin("192.0.2.1")).unwrap(),
        );
        let (one, other) = (first.work().unwrap(), second.work().unwrap());
        assert!(pool.enter(origin("192.0.2.2")).is_none());
        drop(one);
        let third = pool.enter(origin("192.0.2.2")).unwrap();
        assert!(first.has_ended() && first.work().is_none());
        drop(other);
        assert!(!second.has_ended() && !third.has_ended());
    }

    #[test]
    fn an_origin_has_its_share_and_makes_room_for_itself() {
        let pool = pool(100, 2, Yields::Member);
        let members: Vec<_> = (0..10)
            .map(|_| pool.enter(origin("192.0.2.1")).unwrap())
            .collect();
        assert_eq!(alive(&members), 2);
        let of_two = [0; 2].map(|_| pool.enter(origin("192.0.2.2")).unwrap());
        assert_eq!((alive(&members), alive(&of_two)), (2, 2));
    }

    #[test]
    fn equals_do_not_end_each_other_where_the_larger_yields() {
        let pool = pool(4, 4, Yields::MemberOfLarger);
        let of_one: Vec<_> = (0..4)
            .map(|_| pool.enter(origin("192.0.2.1")).unwrap())
            .collect();
        assert!(pool.enter(origin("192.0.2.1")).is_none());
        let of_two: Vec<_> = std::iter::from_fn(|| pool.enter(origin("192.0.2.2"))).collect();
        assert_eq!((alive(&of_one), alive(&of_two)), (2, 2));
    }

    #[tokio::test]
    async fn a_member_learns_that_it_was_ended() {
        let pool = pool(1, 1, Yields::Member);
        let first = pool.enter(origin("192.0.2.1")).unwrap();
        let mut ended = Box::pin(first.ended());
        assert!(poll!(&mut ended).is_pending());
        let _second = pool.enter(origin("192.0.2.2")).unwrap();
        ended.await;
        first.ended().await;
        assert!(pool.shed());
        assert!(!pool.shed());
    }
}
