// SPDX-License-Identifier: Apache-2.0
//! The cluster's certificate authority: names in, certificate and key files out.
//!
//! Kubernetes takes the user from the common name and the groups from the
//! organizations of a client certificate
//! (<https://kubernetes.io/docs/setup/best-practices/certificates/>).

use crate::{
    error::{ClusterError, Result},
    files,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::path::{Path, PathBuf};

/// The subject of a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Subject<'a> {
    pub user: &'a str,
    pub group: Option<&'a str>,
    /// Addresses and DNS names of a server.
    pub names: Vec<String>,
}

/// Signs the certificates of one cluster.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// The two files of one identity.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub certificate_path: PathBuf,
    pub key_path: PathBuf,
}

impl Authority {
    /// A new authority; its certificate goes to `ca.crt` of the directory.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        let failed = failed("the cluster's authority");
        let mut params = CertificateParams::new(Vec::new()).map_err(&failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "gpu-dra-cluster");
        let key = KeyPair::generate().map_err(&failed)?;
        let certificate = params.self_signed(&key).map_err(&failed)?.pem();
        let authority = Self { issuer: Issuer::new(params, key), certificate };
        authority.write_certificate(dir)?;
        Ok(authority)
    }

    /// Puts the authority's certificate into `ca.crt` of a directory.
    pub(crate) fn write_certificate(&self, dir: &Path) -> Result<()> {
        files::write(&dir.join("ca.crt"), &self.certificate)
    }

    /// Issues `<name>.crt` and `<name>.key` in a directory, for client and server use.
    pub(crate) fn issue(&self, dir: &Path, name: &str, subject: &Subject<'_>) -> Result<Identity> {
        let failed = failed(subject.user);
        let mut params = CertificateParams::new(subject.names.clone()).map_err(&failed)?;
        params.distinguished_name.push(DnType::CommonName, subject.user);
        if let Some(group) = subject.group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(&failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(&failed)?;
        let identity =
            Identity { certificate_path: dir.join(format!("{name}.crt")), key_path: dir.join(format!("{name}.key")) };
        files::write(&identity.certificate_path, certificate.pem())?;
        files::write_secret(&identity.key_path, &key.serialize_pem())?;
        Ok(identity)
    }
}

/// The pair that signs service account tokens: `service-account.key` and `.pub`.
pub(crate) fn write_token_key(dir: &Path) -> Result<()> {
    let key = KeyPair::generate().map_err(failed("the service account tokens"))?;
    files::write_secret(&dir.join("service-account.key"), &key.serialize_pem())?;
    files::write(&dir.join("service-account.pub"), key.public_key_pem())
}

fn failed(subject: &str) -> impl Fn(rcgen::Error) -> ClusterError {
    let subject = subject.to_owned();
    move |source| ClusterError::Certificate { subject: subject.clone(), source }
}
