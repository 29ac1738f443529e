//! From a mount's configuration to its store. Knows the builders of `object_store` and which settings they need; must
//! not know paths or reads. A builder is never formatted: its `Debug` prints keys in clear.

use crate::connector::Connector;
use crate::credentials::Credentials;
use crate::limits::OriginLimits;
use crate::local::LocalStore;
use crate::mount::{MountConfig, Scheme};
use crate::secret::scrub;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};
use std::sync::Arc;

/// A store, and the same store as one that lists page by page, where it can.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) pages: Option<Arc<dyn PaginatedListStore>>,
}

impl Opened {
    fn remote<S: ObjectStore + PaginatedListStore>(store: S) -> Self {
        let store = Arc::new(store);
        Self { store: Arc::clone(&store) as Arc<dyn ObjectStore>, pages: Some(store) }
    }
}

/// Opens the store of a mount at `scheme://bucket`.
pub(crate) fn open(config: &MountConfig, scheme: Scheme, root: &str, limits: &OriginLimits) -> Result<Opened, String> {
    check_endpoint(config)?;
    if config.anonymous && config.credentials_file.is_some() {
        return Err("anonymous and credentials_file exclude each other: remove one".to_owned());
    }
    match scheme {
        Scheme::S3 => open_s3(config, root, limits),
        Scheme::Gcs => open_gcs(config, root, limits),
        Scheme::Azure => open_azure(config, root, limits),
        Scheme::File => open_local(config, root),
    }
}

/// The library never tries again by itself: attempts are counted and timed by the mount.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// A library error at opening time, fit to print.
fn shown(error: &object_store::Error) -> String {
    scrub(&error.to_string())
}

/// An endpoint is a bare `http(s)://host[:port][/path]`.
fn check_endpoint(config: &MountConfig) -> Result<(), String> {
    let Some(endpoint) = &config.endpoint else { return Ok(()) };
    let url = url::Url::parse(endpoint).map_err(|e| format!("endpoint is not a URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("endpoint must have no user information, query or fragment: use credentials_file".to_owned());
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if config.allow_http => Ok(()),
        "http" => Err("endpoint is plain http: set allow_http = true if that is meant".to_owned()),
        other => Err(format!("endpoint has the scheme {other}; http or https is needed")),
    }
}

fn open_s3(config: &MountConfig, bucket: &str, limits: &OriginLimits) -> Result<Opened, String> {
    let mut builder = match (&config.credentials_file, config.anonymous) {
        (Some(_), _) | (None, true) => AmazonS3Builder::new(),
        (None, false) => AmazonS3Builder::from_env(),
    };
    if let Some(path) = &config.credentials_file {
        let credentials = Credentials::read(path)?;
        builder = builder
            .with_access_key_id(credentials.need(&["aws_access_key_id"])?.reveal())
            .with_secret_access_key(credentials.need(&["aws_secret_access_key"])?.reveal());
        if let Some(token) = credentials.get(&["aws_session_token"]) {
            builder = builder.with_token(token.reveal());
        }
    }
    if let Some(endpoint) = &config.endpoint {
        // Both keys, because AWS_ENDPOINT_URL_S3 in the environment would win over the plain one.
        builder = builder.with_endpoint(endpoint).with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    // The same choice as the library makes; the environment may have a say in both.
    let endpoint = builder
        .get_config_value(&AmazonS3ConfigKey::S3Endpoint)
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
    let virtual_hosted = builder.get_config_value(&AmazonS3ConfigKey::VirtualHostedStyleRequest);
    let bucket_in_host = if virtual_hosted.as_deref() == Some("true") { format!("{bucket}.") } else { String::new() };
    let store = endpoint.unwrap_or_else(|| format!("https://{bucket_in_host}s3.{region}.amazonaws.com"));
    if config.anonymous {
        builder = builder.with_skip_signature(true);
    }
    builder
        .with_bucket_name(bucket)
        .with_allow_http(config.allow_http)
        .with_retry(no_retries())
        .with_http_connector(Connector::new(limits, &store))
        .build()
        .map(Opened::remote)
        .map_err(|e| shown(&e))
}

fn open_gcs(config: &MountConfig, bucket: &str, limits: &OriginLimits) -> Result<Opened, String> {
    let mut builder = match (&config.credentials_file, config.anonymous) {
        (Some(path), _) => GoogleCloudStorageBuilder::new().with_service_account_path(path.to_string_lossy()),
        (None, true) => GoogleCloudStorageBuilder::new(),
        (None, false) => GoogleCloudStorageBuilder::from_env(),
    };
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
    let store = endpoint.unwrap_or_else(|| "https://storage.googleapis.com".to_owned());
    if config.anonymous {
        builder = builder.with_skip_signature(true);
    }
    builder
        .with_bucket_name(bucket)
        .with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), config.allow_http.to_string())
        .with_retry(no_retries())
        .with_http_connector(Connector::new(limits, &store))
        .build()
        .map(Opened::remote)
        .map_err(|e| shown(&e))
}

fn open_azure(config: &MountConfig, container: &str, limits: &OriginLimits) -> Result<Opened, String> {
    let mut builder = match (&config.credentials_file, config.anonymous) {
        (Some(_), _) | (None, true) => MicrosoftAzureBuilder::new(),
        (None, false) => MicrosoftAzureBuilder::from_env(),
    };
    if let Some(path) = &config.credentials_file {
        let credentials = Credentials::read(path)?;
        if let Some(account) = credentials.get(&["azure_storage_account_name", "account"]) {
            builder = builder.with_account(account.reveal());
        }
        builder = match credentials.get(&["azure_storage_sas_token", "sas_token"]) {
            Some(token) => builder.with_config(AzureConfigKey::SasKey, token.reveal()),
            None => builder.with_access_key(credentials.need(&["azure_storage_account_key", "key"])?.reveal()),
        };
    }
    if let Some(account) = &config.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let account = builder.get_config_value(&AzureConfigKey::AccountName).unwrap_or_default();
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    let store = endpoint.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
    if config.anonymous {
        builder = builder.with_skip_signature(true);
    }
    builder
        .with_container_name(container)
        .with_allow_http(config.allow_http)
        .with_retry(no_retries())
        .with_http_connector(Connector::new(limits, &store))
        .build()
        .map(Opened::remote)
        .map_err(|e| shown(&e))
}

fn open_local(config: &MountConfig, directory: &str) -> Result<Opened, String> {
    let foreign = [
        ("endpoint", config.endpoint.is_some()),
        ("region", config.region.is_some()),
        ("account", config.account.is_some()),
        ("credentials_file", config.credentials_file.is_some()),
        ("allow_http", config.allow_http),
        ("anonymous", config.anonymous),
    ];
    if let Some((key, _)) = foreign.iter().find(|(_, is_set)| *is_set) {
        return Err(format!("{key} has no meaning for a file:// mount: remove it"));
    }
    let store = LocalStore::open(directory)?;
    Ok(Opened { store: Arc::new(store), pages: None })
}
