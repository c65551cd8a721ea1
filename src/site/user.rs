//! What an end user's site does: take deliveries into its inbox.

use std::os::unix::fs::PermissionsExt;

use super::request::Reply;
use super::{Error, Site};
use crate::base::SiteId;
use crate::net::Connection;
use crate::pipeline::deliver::Delivery;
use crate::store::remote::kind;

/// The largest delivery that is taken, in bytes: far more than any VCF of one person.
const LARGEST: u64 = 16 << 30;

impl Site {
    /// Takes the delivery that follows on the connection; it appears in the inbox whole or not at
    /// all, with its receipt beside it.
    pub(super) fn receive(
        &self,
        connection: &mut Connection,
        from: &SiteId,
        delivery: &Delivery,
    ) -> Result<Reply, Error> {
        let protocol = || Error::Protocol { peer: from.clone() };
        if delivery.bytes > LARGEST {
            return Err(protocol());
        }
        let inbox = self.settings.inbox();
        let path = inbox.join(format!("{}.vcf.gz", delivery.job));
        let failed = |source| Error::File { path: path.clone(), source };
        std::fs::create_dir_all(&inbox).map_err(failed)?;
        let mut out = crate::io::StreamWriter::create(&path, Some(delivery.bytes))?;
        let mut hash = blake3::Hasher::new();
        let mut received = 0;
        while received < delivery.bytes {
            let message = connection.receive()?.ok_or_else(protocol)?;
            received += message.payload.len() as u64;
            if message.kind != kind::STRIPE || received > delivery.bytes {
                return Err(protocol());
            }
            hash.update(&message.payload);
            out.add(&message.payload)?;
        }
        let digest = hash.finalize().to_hex().to_string();
        if digest != delivery.digest {
            return Err(Error::Digest { peer: self.settings.site.clone() });
        }
        out.finish()?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
        let receipt = serde_json::to_vec_pretty(delivery).expect("deliveries are plain data");
        let beside = inbox.join(format!("{}.json", delivery.job));
        super::trusted::write_new(&inbox, &beside, &receipt)?;
        Ok(Reply::Received(digest))
    }
}
