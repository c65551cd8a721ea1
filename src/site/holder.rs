//! What a share holder does: keep shares of its tenants, and nothing else.

use super::{Error, Site};
use crate::base::SiteId;
use crate::net::Connection;
use crate::store::remote::{Request, Service, kind};

impl Site {
    /// Answers the store requests of one connection, beginning with `first`, until it is closed.
    pub(super) fn hold(
        &self,
        connection: &mut Connection,
        tenant: &SiteId,
        first: Request,
        parse: impl Fn(&[u8]) -> Result<Request, Error>,
    ) -> Result<(), Error> {
        let store = self.store(tenant)?;
        let mut service = Service::new(&*store);
        service.answer(connection, first)?;
        while let Some(message) = connection.receive()? {
            match message.kind {
                kind::REQUEST => service.answer(connection, parse(&message.payload)?)?,
                kind::STRIPE | kind::KEYED_STRIPE => {
                    service.take_stripe(connection, message.payload)?;
                }
                _ => return Err(Error::Protocol { peer: connection.peer().clone() }),
            }
        }
        Ok(())
    }
}
