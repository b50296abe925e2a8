//! `token`, `whoami`, `status`.

use insta::assert_snapshot;
use mainloop_proto::v1::{Scope, Token};

use crate::{
    fake::{Plane, World},
    run::{against, json},
    samples::{at, status},
};

#[test]
fn secret_of_a_new_token_is_alone_on_stdout() {
    let plane = Plane::start(World::default());
    let arguments = [
        "token", "create", "ci", "--scope", "read", "--scope", "submit", "--ttl", "30d",
    ];
    assert_snapshot!(against(&plane, &arguments), @r"
    exit 0
    --- stdout
    mlt_secret
    --- stderr
    token a1b2 `ci` may read, submit until it is revoked; this is the only time its secret is shown
    ");
    assert_snapshot!(plane.world().asked.join("\n"), @r#"CreateTokenRequest { name: "ci", scopes: [Read, Submit], ttl: Some(Duration { seconds: 2592000, nanos: 0 }) }"#);
    assert_eq!(
        json(&plane, &["token", "create", "ci", "--scope", "read"])[0]["secret"],
        "mlt_secret"
    );
}

#[test]
fn tokens_are_listed_and_revoked() {
    let token = |id: &str, name: &str| Token {
        id: id.to_owned(),
        name: name.to_owned(),
        scopes: vec![Scope::Read.into()],
        create_time: at(0),
        ..Token::default()
    };
    let plane = Plane::start(World {
        tokens: vec![
            Token {
                expire_time: at(3600),
                ..token("a1", "ci")
            },
            Token {
                revoke_time: at(1),
                ..token("b2", "old")
            },
            token("c3", "ada's laptop"),
        ],
        ..World::default()
    });
    assert_snapshot!(against(&plane, &["token", "list"]), @r"
    exit 0
    --- stdout
    ID  NAME          SCOPES  MADE              USED  ENDS
    a1  ci            read    2100-01-01 12:00  -     2100-01-01 13:00
    b2  old           read    2100-01-01 12:00  -     revoked
    c3  ada's laptop  read    2100-01-01 12:00  -     never
    ");
    assert_eq!(json(&plane, &["token", "list"]).len(), 3);
    assert_snapshot!(against(&plane, &["token", "revoke", "ci"]), @r"
    exit 0
    --- stdout
    token a1 `ci` is revoked
    ");
    assert_snapshot!(against(&Plane::start(World::default()), &["token", "list"]), @r"
    exit 0
    --- stderr
    no tokens
    ");
}

#[test]
fn caller_and_status_are_shown() {
    let plane = Plane::start(World {
        status: status(),
        ..World::default()
    });
    assert_snapshot!(against(&plane, &["whoami"]), @r"
    exit 0
    --- stdout
    ada (on the local socket), may read, approve
    ");
    assert_snapshot!(against(&plane, &["status"]), @r"
    exit 0
    --- stdout
    plane       0.1.0 at unix:[HOME]/mainloop.sock, up for 0s
    database    embedded PostgreSQL 15.14
    code host   https://github.com as ada
    model       sonnet, opus (credential: api key)
    budget      $5.00 a task, when nothing else is said
    workers     process, sandboxed
    slots       1 of 4 in use, 2 queued
    tasks       3 active, 2 waiting for you
    ");
    assert_eq!(json(&plane, &["status"])[0]["slotsTotal"], 4);
}

#[test]
fn problems_of_the_plane_fail_its_status() {
    let mut status = status();
    status.problems = vec!["the code host refuses the credential".to_owned()];
    status.code_host_login = String::new();
    status.model_credential = String::new();
    let plane = Plane::start(World {
        status,
        ..World::default()
    });
    assert_snapshot!(against(&plane, &["status"]), @r"
    exit 1
    --- stdout
    plane       0.1.0 at unix:[HOME]/mainloop.sock, up for 0s
    database    embedded PostgreSQL 15.14
    code host   https://github.com as nobody yet
    model       sonnet, opus (credential: none)
    budget      $5.00 a task, when nothing else is said
    workers     process, sandboxed
    slots       1 of 4 in use, 2 queued
    tasks       3 active, 2 waiting for you
    problem     the code host refuses the credential
    ");
}
