//! Changing the policy over REST and on the command line.

use serde_json::Value;

use super::Folder;
use super::program::{Program, espalier};

/// A tenant's policy, told apart by its number.
pub(crate) fn policy(number: u32) -> String {
    format!(
        "version = 1\n# {number}\n[[tenant]]\nname = \"green\"\nkey = {number}\nports = [{{ bridge = \"*\", port = \"green-*\" }}]\n"
    )
}

/// Somebody who changes the policy of a controller that keeps it itself.
pub(crate) struct Operator {
    pub(crate) folder: Folder,
    pub(crate) program: Program,
}

impl Operator {
    /// With a controller whose policy is the store's.
    pub(crate) fn start() -> Self {
        let folder = Folder::new();
        let program = Program::start(&["--state", folder.0.join("state").to_str().unwrap()]);
        Self { folder, program }
    }

    /// After it was told to end, and has.
    pub(crate) fn restart(&mut self) {
        self.program.child.wait().unwrap();
        self.program = Program::start(&["--state", self.folder.0.join("state").to_str().unwrap()]);
    }

    /// Exit code, stdout and stderr of a command about the policy.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let server = format!("http://{}", self.program.rest);
        let output = espalier(arguments).env("ESPALIER_SERVER", server).current_dir(&self.folder.0).output().unwrap();
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    pub(crate) async fn put(&self, query: &str, head: &str, text: &str) -> (u16, String, Value) {
        let path = format!("/v1/policy{query}");
        let (status, head, body) = self.program.send("PUT", &path, head, text).await;
        (status, head, serde_json::from_str(&body).unwrap())
    }

    pub(crate) async fn post(&self, what: &str, text: &str) -> (u16, Value) {
        let (status, _, body) = self.program.send("POST", &format!("/v1/policy/{what}"), "", text).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    pub(crate) async fn generation(&self) -> u64 {
        self.program.get("/v1/status").await["policy"]["generation"].as_u64().unwrap()
    }

    pub(crate) async fn text(&self) -> String {
        self.program.call("/v1/policy").await.2
    }

    /// Waits for a generation.
    pub(crate) async fn wait(&self, generation: u64) {
        let so = |status: &Value| status["policy"]["generation"] == generation;
        self.program.wait(&format!("generation {generation}"), "/v1/status", so).await;
    }

    /// The same, with nothing to look at.
    pub(crate) async fn calm(&self, generation: u64) {
        let so =
            |status: &Value| status["policy"]["generation"] == generation && status["problems"] == Value::Array(vec![]);
        self.program.wait(&format!("generation {generation} without problems"), "/v1/status", so).await;
    }

    pub(crate) async fn problems(&self) -> String {
        self.program.get("/v1/status").await["problems"].to_string()
    }
}
