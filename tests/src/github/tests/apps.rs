//! Apps: what they sign, and the tokens that they get for it.

use mainloop_github::{Access, App as Api, AppKey as Key, Class, Client, Error, Repo};

use super::*;

const WORK: Access = Access::Work { workflows: false };

fn repo(full_name: &str) -> Repo {
    let (owner, name) = full_name.split_once('/').unwrap();
    Repo {
        owner: owner.into(),
        name: name.into(),
    }
}

/// An App that is installed on [`REPO`] alone, as mainloop sees it.
fn app(world: &World, lifetime: Duration) -> (u64, Api) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let made = world.github.add_app("loop", "acme", lifetime).unwrap();
    world.github.install_app(made.id, REPO).unwrap();
    (made.id, signing(world, made.id, &made.pem))
}

fn signing(world: &World, id: u64, pem: &str) -> Api {
    let key = Key::from_pem(&pem.to_owned().into()).unwrap();
    Api::new(
        &world.github.api_url().parse().unwrap(),
        &id.to_string(),
        key,
    )
}

fn client(world: &World, full_name: &str, secret: &secrecy::SecretString) -> Client {
    let api = world.github.api_url().parse().unwrap();
    Client::new(&api, repo(full_name), secret).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_reaches_one_repository_until_it_is_revoked() {
    let world = World::new(widgets()).await;
    world.github.seed(Seed::new("acme/gadgets")).unwrap();
    let (id, api) = app(&world, Duration::from_hours(1));
    world.github.install_app(id, "acme/gadgets").unwrap();
    let about = api.about().await.unwrap();
    assert_eq!(
        (about.login().as_str(), about.installations),
        ("loop[bot]", Some(1))
    );
    assert_eq!(about.lacks(WORK), Vec::<String>::new());

    let token = api.token(&repo(REPO), WORK).await.unwrap();
    // Times are in whole seconds, and the answer took some.
    assert!(token.lifetime > Duration::from_mins(59), "{token:?}");
    let here = client(&world, REPO, &token.secret);
    here.repository().await.unwrap();
    assert_eq!(here.identity().await.unwrap().login, "loop[bot]");
    let marker = mainloop_github::Marker::new("0198", mainloop_github::MarkerKind::Plan);
    let issue = here.ensure_planning_issue(&marker, "Plan", "x").await;
    let again = here.ensure_planning_issue(&marker, "Plan", "x").await;
    assert_eq!(
        issue.unwrap().number,
        again.unwrap().number,
        "its own text is known again"
    );
    let other = client(&world, "acme/gadgets", &token.secret);
    assert_eq!(
        other.repository().await.unwrap_err().class(),
        Class::NotFound
    );
    let watching = api.token(&repo(REPO), Access::Watch).await.unwrap();
    let issues = client(&world, REPO, &watching.secret);
    let refused = issues.ensure_planning_issue(&marker, "Plan", "x").await;
    assert!(matches!(
        refused.unwrap_err().class(),
        Class::Forbidden { .. }
    ));

    api.revoke(&token.secret).await.unwrap();
    let dead = here.repository().await.unwrap_err();
    assert_eq!(dead.class(), Class::Unauthorized);
    // A client goes on with another token.
    here.renew(&api.token(&repo(REPO), WORK).await.unwrap().secret)
        .unwrap();
    here.repository().await.unwrap();
    assert!(world.github.read(|site| site.minted[0].revoked));
    world.github.assert_contract();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_may_not_have_it_does_not_get() {
    let world = World::new(widgets()).await;
    world.github.seed(Seed::new("acme/gadgets")).unwrap();
    let (id, api) = app(&world, Duration::ZERO);
    let refused = api.token(&repo("acme/gadgets"), WORK).await.unwrap_err();
    assert!(matches!(refused, Error::NotInstalled { .. }), "{refused}");
    let refused = api.token(&repo("acme/nothing"), WORK).await.unwrap_err();
    assert!(matches!(refused, Error::NotInstalled { .. }), "{refused}");

    // One that lives no time is dead on arrival.
    let token = api.token(&repo(REPO), WORK).await.unwrap();
    let dead = client(&world, REPO, &token.secret).repository().await;
    assert_eq!(dead.unwrap_err().class(), Class::Unauthorized);

    world.github.hub.change(|site| {
        let app = site.apps.get_mut(&id).unwrap();
        app.permissions.remove(&Scope::Workflows);
    });
    let refused = api
        .token(&repo(REPO), Access::Work { workflows: true })
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.class(), Class::Validation);
    assert!(refused.to_string().contains("not granted"), "{refused}");

    // Another App's key.
    let other = world
        .github
        .add_app("other", "acme", Duration::ZERO)
        .unwrap();
    let forged = signing(&world, id, &other.pem).about().await.unwrap_err();
    assert_eq!(forged.class(), Class::Unauthorized);
    world.github.assert_contract();
}
