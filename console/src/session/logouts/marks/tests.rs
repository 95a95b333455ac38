use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn millis(seconds: i64) -> i64 {
    at(seconds).as_millisecond()
}

/// A person, who is a tenant of their own.
fn person(number: usize) -> Key {
    Key::of(&format!("person-{number}"))
}

fn account(namespace: &str, number: usize) -> Key {
    Key::of(&format!(
        "system:serviceaccount:{namespace}:account-{number}"
    ))
}

/// What a gateway knows after these logouts, one each second.
fn after(logouts: impl IntoIterator<Item = Key>) -> (Marks, i64) {
    let mut marks = Marks::default();
    let mut second = 0;
    for key in logouts {
        second += 1;
        marks.put(key, mark(at(0), at(second)));
        marks.settle(at(second));
    }
    (marks, second)
}

fn is_over(marks: &Marks, key: Key, began: i64) -> bool {
    marks.latest(key) >= millis(began)
}

#[test]
fn a_logout_ends_all_sessions_of_the_user_that_began_before_and_no_other() {
    let (ada, bob) = (person(1), person(2));
    let (marks, _) = after([ada]);
    assert!(is_over(&marks, ada, 1));
    assert!(!is_over(&marks, bob, 1));
    // Sessions that other gateways began, with clocks that are ahead.
    assert!(is_over(&marks, ada, 61));
    assert!(!is_over(&marks, ada, 62));
}

#[test]
fn a_session_that_seems_to_begin_later_is_over_too_once_it_is_logged_out() {
    assert_eq!(mark(at(100), at(0)), millis(100));
    assert_eq!(mark(at(0), at(0)), millis(60));
}

#[test]
fn many_logouts_of_one_user_leave_one_mark() {
    let (marks, last) = after(std::iter::repeat_n(person(1), 10_001));
    assert_eq!(marks.of.len(), 1);
    assert!(is_over(&marks, person(1), last));
    assert!(!is_over(&marks, person(2), 0));
}

#[test]
fn many_accounts_of_one_namespace_share_a_bounded_number_of_marks() {
    let (marks, last) = after((0..10_001).map(|number| account("kitchen", number)));
    assert!(marks.of.len() <= MOST_PER_TENANT + 1, "{}", marks.of.len());
    for number in [0, 5000, 10_000] {
        assert!(is_over(
            &marks,
            account("kitchen", number),
            i64::try_from(number).unwrap()
        ));
    }
    // Sessions of the namespace go on that began after all but the latest logouts of others.
    let recent = last - i64::try_from(MOST_PER_TENANT).unwrap() + 61;
    assert!(!is_over(&marks, account("kitchen", 99_999), recent));
    for other in [account("cellar", 0), person(0)] {
        assert!(
            !is_over(&marks, other, -40_000),
            "another tenant loses nothing"
        );
    }
}

#[test]
fn a_mark_too_many_ends_only_sessions_that_are_older_than_the_oldest_mark() {
    let (marks, last) = after((0..1500).map(person));
    assert!(marks.of.len() <= MOST, "{}", marks.of.len());
    for number in [0, 500, 1499] {
        assert!(is_over(
            &marks,
            person(number),
            i64::try_from(number).unwrap()
        ));
    }
    let oldest = last - i64::try_from(MOST).unwrap() + 60;
    assert!(
        is_over(&marks, person(99_999), oldest),
        "the floor is about everybody"
    );
    assert!(!is_over(&marks, person(99_999), oldest + 1));
}

#[test]
fn marks_of_sessions_that_have_ended_by_themselves_are_removed() {
    let (mut marks, _) = after([person(1)]);
    let end = 61 + 12 * 3600 + 60;
    marks.settle(at(end));
    assert_eq!(marks.of.len(), 1);
    marks.settle(at(end + 1));
    assert_eq!(marks, Marks::default());
    let mut floor = Marks {
        floor: millis(0),
        ..Marks::default()
    };
    floor.settle(at(12 * 3600 + 60));
    assert_eq!(floor.floor, millis(0));
    floor.settle(at(12 * 3600 + 61));
    assert_eq!(floor, Marks::default());
}

#[test]
fn the_same_marks_are_read_that_were_written() {
    let (marks, last) = after(
        (0..1100)
            .map(person)
            .chain((0..100).map(|n| account("kitchen", n))),
    );
    let mut stored = Data::from([("strange".to_owned(), "1".to_owned())]);
    let changes = marks.changes(&stored);
    apply(&mut stored, &changes);
    assert_eq!(Marks::read(&stored, at(last)), marks);
    assert!(!stored.contains_key("strange"));
    assert!(marks.changes(&stored).is_empty());
    let bytes: usize = stored
        .iter()
        .map(|(key, value)| key.len() + value.len() + 6)
        .sum();
    assert!(bytes < 100 * 1024, "a ConfigMap holds 1 MiB: {bytes}");
}

#[test]
fn one_logout_writes_one_key_and_removes_a_bounded_number() {
    let (mut marks, last) = after((0..1024).map(person));
    let mut stored = Data::new();
    let changes = marks.changes(&stored);
    apply(&mut stored, &changes);
    marks.put(person(7), mark(at(0), at(last + 1)));
    marks.settle(at(last + 1));
    assert_eq!(marks.changes(&stored).len(), 1);
    // Half a day later all of the old marks may go.
    let later = last + 13 * 3600;
    marks.put(person(7), mark(at(0), at(later)));
    marks.settle(at(later));
    assert_eq!(marks.of.len(), 1);
    assert_eq!(marks.changes(&stored).len(), MOST_REMOVED + 1);
}

#[test]
fn a_value_that_no_right_clock_wrote_ends_the_sessions_until_now_and_no_later_ones() {
    let key = person(1);
    for value in ["9223372036854775807", "never", ""] {
        let stored = Data::from([(key.to_text(), value.to_owned())]);
        let marks = Marks::read(&stored, at(0));
        assert!(is_over(&marks, key, 0), "{value}");
        assert!(!is_over(&marks, key, 301), "{value}");
        assert_eq!(marks.changes(&stored).len(), 1, "the next write mends it");
    }
}

proptest! {
    /// Gateways that see each other's marks in any order know the same in the end, and no session that was logged out
    /// goes on, however the bounds fold the marks.
    #[test]
    fn joined_marks_cover_each_logout_in_any_order(logouts in prop::collection::vec((0_usize..80, any::<bool>(), 0_i64..3000), 1..200)) {
        let all: Vec<(Key, i64)> = logouts.into_iter().map(|(number, is_account, second)| {
            let key = if is_account { account("kitchen", number) } else { person(number) };
            (key, millis(second))
        }).collect();
        let of = |part: &[(Key, i64)]| {
            let mut marks = Marks::default();
            for (key, at_millis) in part {
                marks.put(*key, *at_millis);
                marks.settle(at(3000));
            }
            marks
        };
        let (left, right) = all.split_at(all.len() / 2);
        let (left, right) = (of(left), of(right));
        let joined = |mut one: Marks, other: &Marks| {
            one.join(other);
            one.settle(at(3000));
            one
        };
        let one = joined(left.clone(), &right);
        prop_assert_eq!(&one, &joined(right, &left));
        for (key, at_millis) in &all {
            prop_assert!(one.latest(*key) >= *at_millis);
        }
        let mut rest = one.clone();
        rest.subtract(&one);
        prop_assert_eq!(rest, Marks::default());
    }
}
