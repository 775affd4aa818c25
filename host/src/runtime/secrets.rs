//! Secrets and sign-ins of a running host: what a request is filled with, and what operators see and do.

use std::collections::BTreeSet;
use std::sync::Arc;

use godwit_core::id::{AuthFlowId, HostId};
use godwit_core::operation::request::Target;
use godwit_core::operation::secret::SecretName;
use godwit_core::store::RuntimeStore;
use godwit_core::task::TaskGroup;
use godwit_core::time::Clock;

use super::Runtime;
use crate::secrets::book::{Flow, FlowKind};
use crate::secrets::filling::Filling;
use crate::secrets::flows::{AuthError, AuthFlows};
use crate::secrets::{Origin, SecretConfig, SecretError, SecretText, SecretsConfig};

/// A host's secrets, and how it comes by those that are obtained.
pub(crate) struct Secrets {
    config: Arc<SecretsConfig>,
    flows: AuthFlows,
}

/// What of a secret is to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretView {
    /// Its name.
    pub name: SecretName,
    /// `file`, `env`, `value`, `oauth`.
    pub kind: &'static str,
    /// Where it may be sent.
    pub hosts: Vec<String>,
    /// Whether a request that names it now would be filled in, as far as can be said without refreshing.
    pub has_value: bool,
    /// Why it would not.
    pub problem: Option<String>,
    /// Unix milliseconds: until then its token is valid, if it is one and its server has said so.
    pub expires_at_ms: Option<u64>,
}

impl Secrets {
    pub(crate) fn new(
        host: HostId,
        config: SecretsConfig,
        store: Arc<dyn RuntimeStore>,
        clock: Arc<dyn Clock>,
        tasks: TaskGroup,
    ) -> Self {
        let config = Arc::new(config);
        Self { flows: AuthFlows::new(host, store, clock, config.clone(), tasks), config }
    }

    pub(crate) fn flows(&self) -> &AuthFlows {
        &self.flows
    }

    /// Reads what a request names, if plugin and operator let it go where the request goes.
    ///
    /// # Errors
    /// The first that can't be filled in; nothing was read of those that are not allowed.
    pub(crate) async fn fill(
        &self,
        names: &BTreeSet<SecretName>,
        grants: &[String],
        target: &Target,
    ) -> Result<Filling, SecretError> {
        let mut allowed = Vec::new();
        for name in names {
            if !name.is_granted(grants) {
                return Err(SecretError::NotGranted { name: name.clone() });
            }
            let secret = self.config.get(name).ok_or_else(|| SecretError::Unknown { name: name.clone() })?;
            secret.check(name, target)?;
            allowed.push((name, secret));
        }
        let mut filling = Filling::default();
        for (name, secret) in allowed {
            filling.insert(name.clone(), self.value(name, secret).await?);
        }
        Ok(filling)
    }

    async fn value(&self, name: &SecretName, secret: &SecretConfig) -> Result<SecretText, SecretError> {
        match &secret.origin {
            Origin::Given(source) => {
                let value = source.read().await;
                value.map_err(|reason| SecretError::NoValue { name: name.clone(), reason })
            }
            Origin::SignIn(config) => self.flows.token(name, config).await,
        }
    }

    async fn view(&self, name: &SecretName, secret: &SecretConfig) -> SecretView {
        let (problem, expires_at_ms) = match &secret.origin {
            Origin::Given(source) => (source.read().await.err(), None),
            Origin::SignIn(config) => match self.flows.token_view(name, config).await {
                Ok(Some(tokens)) => (None, tokens.expires_at_ms),
                Ok(None) => (Some(format!("nobody has signed in: godwit auth start {name}")), None),
                Err(problem) => (Some(problem), None),
            },
        };
        SecretView {
            name: name.clone(),
            kind: secret.origin.kind(),
            hosts: secret.hosts.iter().map(ToString::to_string).collect(),
            has_value: problem.is_none(),
            problem,
            expires_at_ms,
        }
    }
}

impl Runtime {
    /// What is known of this host's secrets, by name; never a value.
    pub async fn secrets(&self) -> Vec<SecretView> {
        let secrets = &self.inner().secrets;
        let mut views = Vec::new();
        for (name, secret) in secrets.config.as_ref() {
            views.push(secrets.view(name, secret).await);
        }
        views
    }

    /// Starts a sign-in that obtains a secret.
    ///
    /// # Errors
    /// `AuthError`.
    pub async fn start_auth_flow(
        &self,
        secret: &str,
        kind: FlowKind,
        redirect_uri: Option<String>,
    ) -> Result<Flow, AuthError> {
        self.inner().secrets.flows.start(secret, kind, redirect_uri).await
    }

    /// All sign-ins that are known, in the order of their starts.
    ///
    /// # Errors
    /// As the store's.
    pub async fn auth_flows(&self) -> Result<Vec<Flow>, AuthError> {
        self.inner().secrets.flows.list().await
    }

    /// One sign-in.
    ///
    /// # Errors
    /// `AuthError::Book` with `NoFlow`; as the store's.
    pub async fn auth_flow(&self, id: AuthFlowId) -> Result<Flow, AuthError> {
        self.inner().secrets.flows.show(id).await
    }

    /// Sends the code that a browser has brought, once, and answers what became of the sign-in.
    ///
    /// # Errors
    /// As `AuthFlows::complete`.
    pub async fn complete_auth_flow(
        &self,
        id: AuthFlowId,
        code: String,
        state: String,
    ) -> Result<Flow, AuthError> {
        self.inner().secrets.flows.complete(id, code, state).await
    }

    /// Ends a sign-in that is open. Repeating it is success.
    ///
    /// # Errors
    /// As `AuthFlows::cancel`.
    pub async fn cancel_auth_flow(&self, id: AuthFlowId) -> Result<(), AuthError> {
        self.inner().secrets.flows.cancel(id).await
    }
}
