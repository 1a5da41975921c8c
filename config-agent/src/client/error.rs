//! Why a call to the API came to nothing, and what to do about it.

use std::fmt;

use serde::Deserialize;
use sidetrack_routing::Problem;
use thiserror::Error;

use super::path;

/// Why a call came to nothing.
#[derive(Debug, Error)]
pub enum ApiError {
    /// What was given as the API's address isn't one.
    #[error("{0:?} is no address of an API, must be as http://127.0.0.1:9902 (without TLS)")]
    InvalidUrl(String),
    /// Nobody answers there.
    #[error(
        "no agent answers at {url}: {error:#}; start one by sidetrack agent -c CONFIG, or name its address by --api or \
         SIDETRACK_API"
    )]
    Away {
        /// Where.
        url: String,
        /// What happened.
        error: anyhow::Error,
    },
    /// Somebody answers, but not as an agent does.
    #[error("{url} isn't the API of an agent: {why}; name another by --api or SIDETRACK_API")]
    NoApi {
        /// Where.
        url: String,
        /// What was answered.
        why: String,
    },
    /// The agent has tokens, and none was given.
    #[error("the agent wants a token: name a file that holds one by --token-file, or set SIDETRACK_TOKEN")]
    TokenNeeded,
    /// It doesn't know this one.
    #[error("the agent doesn't know this token: compare it with agent.tokensFile")]
    UnknownToken,
    /// The rules aren't those any more that were to be changed.
    #[error("nothing has changed: somebody changed these rules meanwhile, get them again, and their ETag")]
    Changed,
    /// The rules were to be new.
    #[error("nothing has changed: the key has rules already")]
    NotNew,
    /// The agent says what is wrong.
    #[error(transparent)]
    Refused(Reported),
}

/// What the API says of a call that failed.
#[derive(Clone, Debug, Deserialize, Error)]
pub struct Reported {
    /// All in all.
    pub error: String,
    /// Each thing that is wrong with the body.
    #[serde(default)]
    problems: Vec<ReportedProblem>,
}

#[derive(Clone, Debug, Deserialize)]
struct ReportedProblem {
    path: String,
    message: String,
}

impl Reported {
    /// Whether what is wrong is the list that was sent, not a parameter.
    pub fn is_of_body(&self) -> bool {
        let is_of_list = |problem: &ReportedProblem| problem.path.is_empty() || problem.path.starts_with('[');
        !self.problems.is_empty() && self.problems.iter().all(is_of_list)
    }

    /// Each thing that is wrong, with the place in what was sent.
    pub fn problems(&self) -> Vec<Problem> {
        let problem = |reported: &ReportedProblem| Problem {
            path: path::parse(&reported.path),
            message: reported.message.clone(),
        };
        self.problems.iter().map(problem).collect()
    }
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        self.problems
            .iter()
            .try_for_each(|ReportedProblem { path, message }| match path.as_str() {
                "" => write!(f, "\n{message}"),
                path => write!(f, "\n{path}: {message}"),
            })
    }
}
