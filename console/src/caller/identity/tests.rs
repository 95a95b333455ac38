use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::future::join_all;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// An API server that answers a review only when it is let.
struct Server {
    asked: AtomicUsize,
    answers: Semaphore,
}

impl Server {
    fn new(answers: usize) -> Arc<Self> {
        Arc::new(Self {
            asked: AtomicUsize::new(0),
            answers: Semaphore::new(answers),
        })
    }

    fn identities(self: &Arc<Self>) -> Identities {
        let server = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = Arc::clone(&server);
            async move {
                server.asked.fetch_add(1, Ordering::Relaxed);
                server.answers.acquire().await.unwrap().forget();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                let token = review["spec"]["token"].as_str().unwrap().to_owned();
                review["status"] = if token.starts_with("ada") {
                    json!({ "authenticated": true, "user": { "username": "ada" } })
                } else {
                    json!({ "authenticated": false })
                };
                let body = Body::from(serde_json::to_vec(&review).unwrap());
                Ok::<_, std::convert::Infallible>(Response::new(body))
            }
        });
        Identities::new(Client::new(service, "default"))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn address(third: u8) -> Address {
    IpAddr::from([192, 0, third, 1]).into()
}

fn token(text: String) -> Token {
    Token::new(text).unwrap()
}

/// Lets what is asked go as far as it can without an answer.
async fn go<T>(asked: &mut (impl Future<Output = T> + Unpin)) {
    for _ in 0..100 {
        assert!(futures::poll!(&mut *asked).is_pending());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn random_tokens_of_strangers_keep_neither_another_address_nor_a_user_waiting() {
    let server = Server::new(1);
    let identities = server.identities();
    let known = token("ada".to_owned());
    assert!(
        identities
            .ask(&known, Some(address(1)), || Ok(()))
            .await
            .unwrap()
            .is_some()
    );
    identities.known.invalidate_all();

    let random: Vec<Token> = (0..500)
        .map(|number| token(format!("random-{number}")))
        .collect();
    let flood = |last: u8| {
        let asked = random.iter().map(move |token| (token, Some(address(last))));
        asked.map(|(token, address)| identities.ask(token, address, || Ok(())))
    };
    let mut of_one = Box::pin(join_all(flood(2)));
    go(&mut of_one).await;
    assert_eq!(server.asked(), 1 + REVIEWS_EACH, "one address");
    let other = token("other".to_owned());
    let mut honest = Box::pin(identities.ask(&other, Some(address(3)), || Ok(())));
    go(&mut honest).await;
    assert_eq!(
        server.asked(),
        2 + REVIEWS_EACH,
        "another address is asked about at once"
    );

    let many: Vec<Token> = (0..500)
        .map(|number| token(format!("more-{number}")))
        .collect();
    let addresses = many.iter().zip((4..=253).cycle());
    let of_many =
        addresses.map(|(token, last)| identities.ask(token, Some(address(last)), || Ok(())));
    let mut of_many = Box::pin(join_all(of_many));
    go(&mut of_many).await;
    assert_eq!(server.asked(), 1 + REVIEWS / 2, "strangers have a half");
    let mut user = Box::pin(identities.ask(&known, Some(address(2)), || Ok(())));
    go(&mut user).await;
    assert_eq!(
        server.asked(),
        2 + REVIEWS / 2,
        "a user is asked about at once"
    );
}

#[tokio::test]
async fn requests_with_one_token_share_a_review() {
    let server = Server::new(0);
    let identities = server.identities();
    let ada = token("ada".to_owned());
    let asked = join_all((0..100).map(|_| identities.ask(&ada, Some(address(1)), || Ok(()))));
    let mut asked = Box::pin(asked);
    go(&mut asked).await;
    server.answers.add_permits(100);
    assert!(
        asked
            .await
            .iter()
            .all(|who| who.as_ref().unwrap().is_some())
    );
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn random_tokens_displace_no_users_answer() {
    let server = Server::new(Semaphore::MAX_PERMITS);
    let identities = server.identities();
    let ada = token("ada".to_owned());
    identities
        .ask(&ada, Some(address(1)), || Ok(()))
        .await
        .unwrap();
    for number in 0..20_000 {
        let random = token(format!("random-{number}")).digest();
        identities.refused.insert(random, ());
    }
    identities.refused.run_pending_tasks();
    assert!(identities.refused.entry_count() <= MOST_REFUSED);
    assert!(matches!(
        identities.remembered(&ada.digest()),
        Some(Some(_))
    ));
}
