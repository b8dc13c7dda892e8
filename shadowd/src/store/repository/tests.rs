//! The directory, a bucket of a real server, and what is common to both.

use std::path::PathBuf;

use super::server::{Folder, Server};
use super::*;

impl Folder {
    fn store(&self, own: bool) -> RepositoryStore {
        let path = self.0.join("here");
        RepositoryStore::new(RepositoryPlace::Directory { path, own })
    }

    /// Where the versions of `web` lie.
    fn versions(&self) -> PathBuf {
        self.0.join("here/web/versions")
    }
}

fn web() -> Name {
    "web".parse().unwrap()
}

fn signed(number: u64) -> (Place, Signed) {
    let signed = Signed {
        bytes: format!("version {number}").into_bytes(),
        key: vec![1; 44],
        signature: vec![2; 64],
    };
    let id = VersionId::of(&signed.bytes);
    (Place { number, id }, signed)
}

fn places(listing: &Listing) -> Vec<Place> {
    listing.objects.iter().map(|object| object.place).collect()
}

#[tokio::test]
async fn what_is_put_is_listed_and_comes_back() {
    let folder = Folder::new("put");
    let store = folder.store(true).open().unwrap();
    assert_eq!(store.list(&web(), 0).await.unwrap(), Listing::default());
    for number in [1, 2, 300] {
        let (place, signed) = signed(number);
        store.put(&web(), place, &signed, false).await.unwrap();
        // Whoever comes later finds it there.
        store.put(&web(), place, &signed, false).await.unwrap();
        let got = store.get(&web(), place).await.unwrap();
        assert_eq!(got, Object::Signed(signed));
    }
    let listing = store.list(&web(), 0).await.unwrap();
    let all = [1, 2, 300].map(|number| signed(number).0);
    assert_eq!(places(&listing), all);
    assert!(listing.objects.iter().all(|object| object.fits));
    let late = store.list(&web(), 2).await.unwrap();
    assert_eq!(places(&late), all[1..], "the number itself is within");
    assert_eq!(places(&store.list(&web(), 3).await.unwrap()), all[2..]);
    let other = "db".parse().unwrap();
    assert_eq!(store.list(&other, 0).await.unwrap(), Listing::default());
    assert_eq!(store.get(&other, all[0]).await.unwrap(), Object::Gone);
    let mode = std::os::unix::fs::MetadataExt::mode(&folder.0.join("here").metadata().unwrap());
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn what_was_damaged_is_found_and_written_over_only_when_told() {
    let folder = Folder::new("damage");
    let store = folder.store(true).open().unwrap();
    let (place, version) = signed(1);
    store.put(&web(), place, &version, false).await.unwrap();
    let before = store.list(&web(), 0).await.unwrap();
    let file = folder.versions().join(file_name(place));
    let whole = std::fs::read(&file).unwrap();
    let mut cases = vec![Vec::new(), b"x".to_vec(), whole[..whole.len() - 1].to_vec()];
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        cases.push(flipped);
    }
    cases.push(profiles::packed(&signed(2).1).unwrap());
    for spoiled in cases {
        std::fs::write(&file, &spoiled).unwrap();
        match store.get(&web(), place).await.unwrap() {
            Object::Bad(_) => {}
            // Key and signature are no part of the identity: who signed is for others to check.
            Object::Signed(other) => assert_eq!(other.bytes, version.bytes),
            Object::Gone => panic!("it is there"),
        }
    }
    let after = store.list(&web(), 0).await.unwrap();
    assert_ne!(after.objects[0].stamp, before.objects[0].stamp);
    store.put(&web(), place, &version, false).await.unwrap();
    let still = store.get(&web(), place).await.unwrap();
    assert!(matches!(still, Object::Bad(_)), "{still:?}");
    store.put(&web(), place, &version, true).await.unwrap();
    let mended = store.get(&web(), place).await.unwrap();
    assert_eq!(mended, Object::Signed(version));
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_not_there() {
    let folder = Folder::new("torn");
    let store = folder.store(true).open().unwrap();
    let (place, version) = signed(1);
    store.put(&web(), place, &version, false).await.unwrap();
    // As `LocalFileSystem` calls what it has not finished.
    let (torn, _) = signed(2);
    let half = folder.versions().join(format!("{}#1", file_name(torn)));
    std::fs::write(&half, b"half").unwrap();
    let listing = store.list(&web(), 0).await.unwrap();
    assert_eq!(places(&listing), [place]);
    assert_eq!(listing.foreign, 0);
    assert_eq!(store.get(&web(), torn).await.unwrap(), Object::Gone);
    let (torn, version) = signed(2);
    store.put(&web(), torn, &version, false).await.unwrap();
    let got = store.get(&web(), torn).await.unwrap();
    assert_eq!(got, Object::Signed(version));
}

#[tokio::test]
async fn what_is_called_otherwise_is_counted_and_left_alone() {
    let folder = Folder::new("foreign");
    let store = folder.store(true).open().unwrap();
    let (place, version) = signed(1);
    store.put(&web(), place, &version, false).await.unwrap();
    let own = file_name(place);
    let loud = own.to_uppercase();
    for name in ["README", "1-x", &own[1..], &loud, &format!("{own}x"), "99-"] {
        std::fs::write(folder.versions().join(name), b"x").unwrap();
    }
    std::fs::create_dir(folder.versions().join("more")).unwrap();
    std::fs::write(folder.versions().join("more").join(&own), b"x").unwrap();
    let long = folder.versions().join(file_name(signed(2).0));
    let file = std::fs::File::create(long).unwrap();
    file.set_len(OBJECT_MAX + 1).unwrap();
    let listing = store.list(&web(), 0).await.unwrap();
    assert_eq!(listing.foreign, 7);
    assert_eq!(places(&listing), [place, signed(2).0]);
    let fits: Vec<bool> = listing.objects.iter().map(|object| object.fits).collect();
    assert_eq!(fits, [true, false]);
    let got = store.get(&web(), signed(2).0).await.unwrap();
    assert_eq!(got, Object::Bad("it is too long"));
}

#[tokio::test]
async fn of_many_only_the_newest_are_listed() {
    let folder = Folder::new("many");
    let store = folder.store(true).open().unwrap();
    std::fs::create_dir_all(folder.versions()).unwrap();
    for number in 0..2 * Listing::MAX as u64 + 10 {
        let name = file_name(signed(number).0);
        std::fs::write(folder.versions().join(name), b"x").unwrap();
    }
    let listing = store.list(&web(), 0).await.unwrap();
    let numbers: Vec<u64> = places(&listing).iter().map(|place| place.number).collect();
    let wanted: Vec<u64> = (Listing::MAX as u64 + 10..2 * Listing::MAX as u64 + 10).collect();
    assert_eq!(numbers, wanted);
}

#[tokio::test]
async fn a_directory_of_others_has_to_be_there_and_may_come_back() {
    let folder = Folder::new("mount");
    let mut store = folder.store(false);
    let error = store.open().unwrap_err();
    assert!(error.is_silence() && error.to_string().contains("make the directory"));
    std::fs::create_dir(folder.0.join("here")).unwrap();
    let (place, version) = signed(1);
    let opened = store.open().unwrap();
    opened.put(&web(), place, &version, false).await.unwrap();
    std::fs::remove_dir_all(folder.0.join("here")).unwrap();
    assert!(store.open().unwrap_err().is_silence());
}

#[tokio::test]
async fn a_name_of_a_group_stays_below_the_directory() {
    let folder = Folder::new("names");
    let store = folder.store(true).open().unwrap();
    let (place, version) = signed(1);
    for name in ["..", ".", "a#1", "%2e%2e", "a\\b"] {
        let group: Name = name.parse().unwrap();
        store.put(&group, place, &version, false).await.unwrap();
        let listing = store.list(&group, 0).await.unwrap();
        assert_eq!(places(&listing), [place], "{name}");
        let got = store.get(&group, place).await.unwrap();
        assert_eq!(got, Object::Signed(version.clone()), "{name}");
    }
    let outside: Vec<_> = std::fs::read_dir(&folder.0).unwrap().collect();
    assert_eq!(outside.len(), 1, "{outside:?}");
}

#[test]
fn only_one_name_is_that_of_a_version() {
    let (place, _) = signed(7);
    let name = file_name(place);
    assert_eq!(place_of(&name), Some(place));
    for odd in [
        "",
        "-",
        &name[1..],
        &name.to_uppercase(),
        &format!("{name}a"),
        &name.replacen('0', "+", 1),
        "99999999999999999999-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        assert_eq!(place_of(odd), None, "{odd}");
    }
}

fn bucket(folder: &Folder, server: &Server, prefix: &str) -> RepositoryStore {
    RepositoryStore::new(RepositoryPlace::S3(S3Settings {
        bucket: Server::BUCKET.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: Some(server.endpoint()),
        region: "us-east-1".to_owned(),
        credentials: Some(server.credentials(&folder.0)),
    }))
}

#[tokio::test]
async fn a_bucket_does_what_a_directory_does() {
    let folder = Folder::new("s3");
    let mut server = Server::start(&folder.0.join("s3"));
    for prefix in ["", "eu/profiles"] {
        let mut store = bucket(&folder, &server, prefix);
        let opened = store.open().unwrap();
        assert_eq!(opened.list(&web(), 0).await.unwrap(), Listing::default());
        for number in [1, 2, 300] {
            let (place, signed) = signed(number);
            opened.put(&web(), place, &signed, false).await.unwrap();
            opened.put(&web(), place, &signed, false).await.unwrap();
            let got = opened.get(&web(), place).await.unwrap();
            assert_eq!(got, Object::Signed(signed));
        }
        let all = [1, 2, 300].map(|number| signed(number).0);
        assert_eq!(places(&opened.list(&web(), 0).await.unwrap()), all);
        assert_eq!(places(&opened.list(&web(), 2).await.unwrap()), all[1..]);
        let missing = opened.get(&web(), signed(9).0).await.unwrap();
        assert_eq!(missing, Object::Gone);
        let (place, version) = signed(2);
        let file = server.bucket().join(prefix).join("web/versions");
        std::fs::write(file.join(file_name(place)), b"spoiled").unwrap();
        let spoiled = opened.get(&web(), place).await.unwrap();
        assert!(matches!(spoiled, Object::Bad(_)), "{spoiled:?}");
        opened.put(&web(), place, &version, true).await.unwrap();
        let mended = opened.get(&web(), place).await.unwrap();
        assert_eq!(mended, Object::Signed(version));
    }
    let mut store = bucket(&folder, &server, "");
    let opened = store.open().unwrap();
    server.stop();
    let error = opened.list(&web(), 0).await.unwrap_err();
    assert!(error.is_silence(), "{error:?}");
    server.start_again();
    assert_eq!(opened.list(&web(), 0).await.unwrap().objects.len(), 3);
}

#[tokio::test]
async fn pages_of_a_long_listing_are_put_together() {
    let folder = Folder::new("pages");
    let server = Server::start(&folder.0.join("s3"));
    let versions = server.bucket().join("web/versions");
    std::fs::create_dir_all(&versions).unwrap();
    for number in 0..1_500 {
        std::fs::write(versions.join(file_name(signed(number).0)), b"x").unwrap();
    }
    let opened = bucket(&folder, &server, "").open().unwrap();
    let listing = opened.list(&web(), 0).await.unwrap();
    let numbers: Vec<u64> = places(&listing).iter().map(|place| place.number).collect();
    assert_eq!(
        numbers,
        (1_500 - Listing::MAX as u64..1_500).collect::<Vec<_>>()
    );
}

/// The root of why something failed.
fn root(error: &RepositoryError) -> String {
    let error: &(dyn std::error::Error + 'static) = error;
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.last().unwrap().to_string()
}

#[tokio::test]
async fn a_bucket_that_is_not_there_and_keys_that_are_wrong_are_told_by_their_codes() {
    let folder = Folder::new("refused");
    let server = Server::start(&folder.0.join("s3"));
    let mut store = bucket(&folder, &server, "");
    let RepositoryPlace::S3(mut settings) = store.place.clone() else {
        unreachable!("it is a bucket")
    };
    settings.bucket = "nobody-has-this".to_owned();
    let mut none = RepositoryStore::new(RepositoryPlace::S3(settings));
    let refused = none.open().unwrap().list(&web(), 0).await.unwrap_err();
    assert!(root(&refused).ends_with("NoSuchBucket"), "{refused:?}");
    let other = "access_key_id = x\nsecret_access_key = sesame\n";
    std::fs::write(server.credentials(&folder.0), other).unwrap();
    let opened = store.open().unwrap();
    let (place, version) = signed(1);
    let refused = opened
        .put(&web(), place, &version, false)
        .await
        .unwrap_err();
    assert!(!refused.is_silence(), "{refused:?}");
    assert!(!format!("{refused:?}").contains("sesame"), "{refused:?}");
}
