//! Git over HTTP.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn git_asks_for_credentials_and_holds_people_to_their_rights() {
    let world = World::new(widgets()).await;
    let url = world.github.clone_url(REPO);
    let refused = async |secret: &str, folder: &Path, args: &[&str]| {
        let output = world.git(folder, secret, args).await;
        assert!(!output.status.success(), "git {args:?} went through");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let here = world.dir.path();
    assert!(
        refused("", here, &["clone", &url, "none"])
            .await
            .contains("could not read Username")
    );
    assert!(
        refused("wrong", here, &["clone", &url, "none"])
            .await
            .contains("could not read Username"),
        "a bad token is asked for again"
    );
    world.github.add_token("other", Token::classic("stranger"));
    assert!(
        refused("other", here, &["clone", &url, "none"])
            .await
            .contains("Repository not found")
    );

    let clone = world.pushed_branch("topic", "42").await;
    world.github.add_token(
        "reader",
        Token::classic("robot").with(Scope::Contents, Level::Read),
    );
    world.commit(&clone, "43").await;
    assert!(
        refused("reader", &clone, &["push", "origin", "topic"])
            .await
            .contains("403")
    );
    std::fs::write(clone.join(".github/workflows/ci.yml"), "on: push\n").unwrap();
    world
        .git_ok(&clone, &["commit", "--quiet", "-am", "Touch the workflow"])
        .await;
    world.github.add_token(
        "plain",
        Token::fine_grained("robot").with(Scope::Workflows, Level::None),
    );
    assert!(
        refused("plain", &clone, &["push", "origin", "topic"])
            .await
            .contains("refusing to allow")
    );
    assert!(
        refused(
            "secret",
            &clone,
            &["push", "origin", "HEAD:refs/pull/9/head"]
        )
        .await
        .contains("hidden ref")
    );
    world
        .git_ok(&clone, &["push", "--quiet", "origin", "topic"])
        .await;

    world
        .git_ok(
            here,
            &[
                "clone",
                "--quiet",
                "--filter=blob:none",
                "--no-checkout",
                &url,
                "partial",
            ],
        )
        .await;
    let missing = world
        .git_ok(
            &here.join("partial"),
            &["rev-list", "--objects", "--all", "--missing=print"],
        )
        .await;
    assert!(
        missing.lines().any(|line| line.starts_with('?')),
        "a partial clone leaves blobs behind: {missing}"
    );
}
