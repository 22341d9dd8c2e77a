//! The tools that a person has approved, by the hash of their definition: one that has changed since is asked about anew.

use std::collections::HashMap;

use llama_stack_core::Result;
use llama_stack_proto::v1::AgentConfig;
use llama_stack_store::Store;

/// A server's address and a tool's name.
type Key = (String, String);

#[derive(Default)]
pub(crate) struct Pins {
    /// The servers' addresses by label; the stack's own tools have none.
    servers: HashMap<String, String>,
    hashes: HashMap<Key, String>,
}

/// What to write down before an approved call runs.
pub(crate) struct Pin(Option<(String, Key, String)>);

impl Pins {
    /// Those of the servers of this configuration, and of the stack's own tools where it has any.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn of(store: &Store, tenant: &str, config: &AgentConfig) -> Result<Self> {
        let mut pins = Self::default();
        for server in &config.mcp_servers {
            let address = if server.url.is_empty() { format!("group:{}", server.connector_id) } else { server.url.clone() };
            pins.read(store, tenant, &address).await?;
            pins.servers.insert(server.label.clone(), address);
        }
        if !config.tools.is_empty() {
            pins.read(store, tenant, "").await?;
        }
        Ok(pins)
    }

    async fn read(&mut self, store: &Store, tenant: &str, address: &str) -> Result<()> {
        for (tool, hash) in store.tool_pins(tenant, address).await? {
            self.hashes.insert((address.to_owned(), tool), hash);
        }
        Ok(())
    }

    fn key(&self, group: &str, tool: &str) -> Key {
        (self.servers.get(group).cloned().unwrap_or_default(), tool.to_owned())
    }

    /// Whether a tool was approved under another definition.
    pub(crate) fn changed(&self, group: &str, tool: &str, hash: &str) -> bool {
        self.hashes.get(&self.key(group, tool)).is_some_and(|pinned| pinned != hash)
    }

    pub(crate) fn pin(&self, tenant: &str, approved: bool, group: &str, tool: &str, hash: String) -> Pin {
        let key = self.key(group, tool);
        let new = approved && self.hashes.get(&key) != Some(&hash);
        Pin(new.then(|| (tenant.to_owned(), key, hash)))
    }
}

impl Pin {
    /// A pin that cannot be written is missed by no call: the tool is asked about again.
    pub(crate) async fn set(self, store: &Store) {
        let Some((tenant, (address, tool), hash)) = self.0 else { return };
        if let Err(error) = store.pin_tool(&tenant, &address, &tool, &hash).await {
            tracing::warn!(tool, error = ?error, "an approved tool could not be pinned");
        }
    }
}
