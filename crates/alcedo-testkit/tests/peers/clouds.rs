//! Google Cloud Storage and Azure Blob, as the test server speaks them: the same answers as from S3, and no request
//! more than each store's protocol makes necessary.
//!
//! Knows mounts, schemes and the server's counters. It must not know the questions, which all stores share.

use alcedo_client::{Kind, ListOptions};
use alcedo_testkit::s3::{Operation, RequestRecord, S3Options, S3Server};
use tempfile::NamedTempFile;

use crate::overwrite::overwrites;
use crate::plain::{found, of_answer};
use crate::served::{ALWAYS, FILES, LAKE, LASTING, Served, serve};
use crate::tour::{PREFIX, path, row_of, tour_of_files, tour_of_prefix};

const BUCKET: &str = "lake";
/// Few enough that the lake's listing takes several pages.
const LIST_PAGE_SIZE: usize = 3;
const PAGES_OF_LAKE: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cloud {
    Google,
    Azure,
}

impl Cloud {
    const ALL: [Self; 2] = [Self::Google, Self::Azure];

    /// HEADs that a file takes of which nothing is known: Azure has no ranges that count from the end.
    fn heads_of_unknown_file(self) -> usize {
        match self {
            Self::Google => 0,
            Self::Azure => 1,
        }
    }

    fn mount(self, server: &S3Server, freshness: &str) -> Served {
        let (scheme, endpoint) = match self {
            Self::Google => ("gs", server.url()),
            Self::Azure => ("az", server.azure_url()),
        };
        let account = if self == Self::Azure { "account = \"devstoreaccount1\"\n" } else { "" };
        serve(&format!(
            "url = \"{scheme}://{BUCKET}\"\nendpoint = \"{endpoint}\"\n{account}anonymous = true\nallow_http = true\n\
             freshness = {freshness}"
        ))
    }
}

/// A server that holds the lake.
fn server(access_key: Option<(String, String)>) -> S3Server {
    let options = S3Options { access_key, list_page_size: LIST_PAGE_SIZE, ..S3Options::default() };
    let server = S3Server::start(options).unwrap();
    for (name, bytes) in FILES.iter() {
        server.put(BUCKET, &format!("users/{name}"), bytes.clone());
    }
    server
}

/// What was asked since the last call.
fn asked(server: &S3Server) -> Vec<RequestRecord> {
    let requests = server.requests();
    server.reset_counters();
    requests
}

fn count(requests: &[RequestRecord], operation: Operation) -> usize {
    requests.iter().filter(|request| request.operation == operation).count()
}

/// Every read but a file's first names the version that it wants, in quotes as a condition must be, and is answered.
fn assert_conditional(requests: &[RequestRecord], unconditional: usize) {
    let gets: Vec<_> = requests.iter().filter(|request| request.operation == Operation::Get).collect();
    assert!(gets.iter().all(|get| get.status == Some(206) && get.range.is_some()), "{gets:?}");
    let (named, unnamed): (Vec<_>, Vec<_>) = gets.into_iter().partition(|get| get.if_match.is_some());
    assert_eq!(unnamed.len(), unconditional, "{unnamed:?}");
    assert!(named.iter().all(|get| get.if_match.as_deref().unwrap().starts_with('"')), "{named:?}");
}

#[tokio::test]
async fn lookups_in_every_cloud_are_the_truth() {
    for cloud in Cloud::ALL {
        let server = server(None);
        let served = cloud.mount(&server, LASTING);
        tour_of_prefix(&served.client).await;
        let requests = asked(&server);
        // The listing named every version, so nothing is asked twice and nothing without a condition.
        assert_eq!(count(&requests, Operation::Head), 0, "{cloud:?}: {requests:?}");
        assert_eq!(count(&requests, Operation::List), PAGES_OF_LAKE, "{cloud:?}");
        assert_conditional(&requests, 0);
        tour_of_files(&served.client).await;
        let requests = asked(&server);
        // Asked for by name, the files' versions are still known from the listing.
        assert_eq!(count(&requests, Operation::Head), 0, "{cloud:?}: {requests:?}");
        assert_conditional(&requests, 0);
    }
}

#[tokio::test]
async fn a_cold_lookup_costs_what_the_stores_protocol_needs() {
    for cloud in Cloud::ALL {
        let server = server(None);
        for (file, gets) in [(0, 2), (1, 3)] {
            let served = cloud.mount(&server, LASTING);
            let row = row_of(file);
            asked(&server);
            let answer = served.client.lookup(path(file)).key_column("id").key(row.id).await.unwrap();
            assert_eq!(of_answer(&answer), [found(&LAKE, 0, &row)]);
            let requests = asked(&server);
            assert_eq!(count(&requests, Operation::Head), cloud.heads_of_unknown_file(), "{cloud:?}: {requests:?}");
            assert_eq!(count(&requests, Operation::Get), gets, "{cloud:?}: {requests:?}");
            assert_eq!(answer.origin_gets, gets as u64);
            // The tail's GET is the first of the file; on Azure the HEAD was.
            assert_conditional(&requests, 1 - cloud.heads_of_unknown_file());
            let again = served.client.lookup(path(file)).key_column("id").key(row.id).await.unwrap();
            assert_eq!((of_answer(&again), asked(&server)), (of_answer(&answer), Vec::new()));
        }
        let served = cloud.mount(&server, LASTING);
        let answer = served.client.lookup(PREFIX).key_column("id").key(row_of(2).id).await.unwrap();
        let requests = asked(&server);
        // Every file's tail, to know its key bounds, and the rest of the only one that may hold the key.
        assert_eq!(count(&requests, Operation::Get), FILES.len() + 1, "{cloud:?}: {requests:?}");
        assert_eq!((answer.files_total, answer.files_asked), (LAKE.spec().files, 1));
        assert_eq!(count(&requests, Operation::Head), 0, "{cloud:?}: {requests:?}");
        assert_eq!(count(&requests, Operation::List), PAGES_OF_LAKE, "{cloud:?}");
    }
}

#[tokio::test]
async fn a_listing_of_many_pages_is_whole() {
    for cloud in Cloud::ALL {
        let server = server(None);
        for number in 0..7 {
            server.put(BUCKET, &format!("users/extra/note-{number} é.txt"), "x");
        }
        let served = cloud.mount(&server, LASTING);
        let all = ListOptions { recursive: true, limit: 0 };
        let listing = served.client.list(PREFIX, all).await.unwrap();
        let names: Vec<&str> = listing.entries.iter().map(|entry| entry.url.split_once("users/").unwrap().1).collect();
        let extra: Vec<String> = (0..7).map(|number| format!("extra/note-{number} é.txt")).collect();
        let files = FILES.iter().map(|(name, _)| name.as_str());
        assert_eq!(names, extra.iter().map(String::as_str).chain(files).collect::<Vec<_>>(), "{cloud:?}");
        assert!(!listing.truncated);
        assert_eq!(count(&asked(&server), Operation::List), 4, "{cloud:?}");
        // One content has one name, whether a listing or the file itself told it.
        let stat = served.client.stat(&path(2)).await.unwrap();
        let listed = listing.entries.iter().find(|entry| entry.url == stat.url).unwrap();
        assert_eq!((&listed.version, listed.size_bytes), (&stat.version, stat.size_bytes), "{cloud:?}");
        let level = served.client.list(PREFIX, ListOptions { recursive: false, limit: 0 }).await.unwrap();
        let prefixes = level.entries.iter().filter(|entry| entry.is_prefix).count();
        assert_eq!((level.entries.len(), prefixes), (FILES.len() + 1, 1), "{cloud:?}");
    }
}

#[tokio::test]
async fn an_overwritten_object_is_seen_at_once_where_freshness_is_always() {
    for cloud in Cloud::ALL {
        let server = server(None);
        let served = cloud.mount(&server, ALWAYS);
        for overwrite in overwrites() {
            let put = async |name: String, bytes| drop(server.put(BUCKET, &format!("users/{name}"), bytes));
            overwrite.is_seen_at_once(&served.client, put).await;
        }
        // Of a file that has not changed, one HEAD says so.
        let row = row_of(3);
        for (requests, path) in [(1, path(3)), (PAGES_OF_LAKE, PREFIX.to_owned())] {
            served.client.lookup(&path).key_column("id").key(row.id).await.unwrap();
            asked(&server);
            let answer = served.client.lookup(&path).key_column("id").key(row.id).await.unwrap();
            assert_eq!(of_answer(&answer), [found(&LAKE, 0, &row)]);
            let asked = asked(&server);
            assert_eq!((asked.len(), count(&asked, Operation::Get)), (requests, 0), "{cloud:?}: {asked:?}");
        }
    }
}

#[tokio::test]
async fn an_object_that_changes_between_two_reads_is_read_anew_and_never_mixed() {
    for cloud in Cloud::ALL {
        for by_prefix in [false, true] {
            for overwrite in overwrites() {
                let server = server(None);
                let served = cloud.mount(&server, LASTING);
                let path = if by_prefix { PREFIX.to_owned() } else { path(overwrite.file) };
                let put = async |name: String, bytes| drop(server.put(BUCKET, &format!("users/{name}"), bytes));
                overwrite.is_never_mixed(&served.client, &path, put).await;
                let requests = asked(&server);
                assert!(requests.iter().any(|request| request.status == Some(412)), "{cloud:?}: {requests:?}");
            }
        }
    }
}

#[tokio::test]
async fn azure_requests_carry_the_accounts_key() {
    let server = server(Some(("kingfisher".to_owned(), "unused".to_owned())));
    for (account, is_known) in [("kingfisher", true), ("heron", false)] {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("account = {account}\nkey = Y2FuYXJ5LXNlY3JldA==\n")).unwrap();
        let (endpoint, credentials) = (server.azure_url(), file.path().display());
        let served = serve(&format!(
            "url = \"az://{BUCKET}\"\nendpoint = \"{endpoint}\"\nallow_http = true\n\
             credentials_file = \"{credentials}\""
        ));
        let row = row_of(0);
        let answer = served.client.lookup(path(0)).key_column("id").key(row.id).await;
        match answer {
            Ok(answer) => assert_eq!((of_answer(&answer), is_known), (vec![found(&LAKE, 0, &row)], true)),
            Err(error) => assert_eq!((error.kind(), is_known), (Kind::Denied, false), "{error}"),
        }
    }
}
