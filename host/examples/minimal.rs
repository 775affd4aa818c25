//! The least that starts and stops a host.

use godwit::config::HostConfig;
use godwit::host::HostBuilder;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let host = HostBuilder::new(HostConfig::in_directory(folder.path())).start().await?;
    println!("{}", host.ready_line());
    println!("{} agents live here", host.runtime().agents(None, 10).await?.len());
    print!("{}", host.stop().await);
    Ok(())
}
