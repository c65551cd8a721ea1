//! Asking a trusted server for work.

use super::request::{AnalyseRequest, DeliverRequest, Reply, Request};
use super::{Error, Site};
use crate::base::SiteId;
use crate::flow::StageReport;
use crate::pipeline::analyse::AnalyseReport;
use crate::pipeline::deliver::DeliverReport;
use crate::store::remote::kind;

impl Site {
    /// Lets a trusted server analyse a deposit; `progress` hears how it goes.
    pub fn ask_to_analyse(
        &self,
        trusted: &SiteId,
        request: AnalyseRequest,
        progress: impl FnMut(&[StageReport]),
    ) -> Result<AnalyseReport, Error> {
        match self.ask(trusted, &Request::Analyse(request), progress)? {
            Reply::Analysed(report) => Ok(*report),
            _ => Err(Error::Protocol { peer: trusted.clone() }),
        }
    }

    /// Lets a trusted server filter a run's calls and deliver them.
    pub fn ask_to_deliver(
        &self,
        trusted: &SiteId,
        request: DeliverRequest,
        progress: impl FnMut(&[StageReport]),
    ) -> Result<DeliverReport, Error> {
        match self.ask(trusted, &Request::Deliver(request), progress)? {
            Reply::Delivered(report) => Ok(*report),
            _ => Err(Error::Protocol { peer: trusted.clone() }),
        }
    }

    fn ask(
        &self,
        trusted: &SiteId,
        request: &Request,
        mut progress: impl FnMut(&[StageReport]),
    ) -> Result<Reply, Error> {
        let mut connection = self.dialer(trusted)?.dial()?;
        let text = serde_json::to_vec(request).expect("requests are plain data");
        connection.send(kind::REQUEST, &text)?;
        let protocol = || Error::Protocol { peer: trusted.clone() };
        loop {
            let message = connection.receive()?.ok_or_else(protocol)?;
            if message.kind != kind::REPLY {
                return Err(protocol());
            }
            match serde_json::from_slice(&message.payload) {
                Ok(Reply::Progress(stages)) => progress(&stages),
                Ok(Reply::Failed(source)) => {
                    return Err(Error::Peer { peer: trusted.clone(), source });
                }
                Ok(reply) => {
                    connection.close()?;
                    return Ok(reply);
                }
                Err(_) => return Err(protocol()),
            }
        }
    }
}
