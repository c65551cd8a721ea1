//! An access right: which records which user may have. Nothing is permitted that it does not say.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, Timestamp};
use crate::base::SiteId;
use crate::genome::genes::{GeneTable, Layout};
use crate::genome::{Region, Regions, bed};

/// A right as it is written in a configuration. It permits the union of its regions and genes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Right {
    /// Its identifier.
    pub id: String,
    /// The site that may have the records.
    pub user: SiteId,
    /// What for.
    pub purpose: String,
    /// A BED file of permitted regions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bed: Option<PathBuf>,
    /// Permitted regions as `chr20:1-1000`, counted from 1 and with the end, or `chr20` for all
    /// of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Permitted genes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub genes: Vec<String>,
    /// Where genes lie: TSV, GFF3 or GTF by the file's extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gene_table: Option<PathBuf>,
    /// Permits the whole genome.
    #[serde(default)]
    pub everywhere: bool,
    /// Most records; all, if not given. The first ones in coordinate order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_records: Option<u64>,
    /// Names in FILTER that a record may have; `*` for any. `PASS`, if not given.
    #[serde(default = "only_pass")]
    pub filter: Vec<String>,
    /// Least QUAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_quality: Option<f32>,
    /// Least GQ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_genotype_quality: Option<u32>,
    /// INFO keys that leave; those that speak of the record alone, if not given.
    #[serde(default = "usual_information")]
    pub information: Vec<String>,
    /// What the sample is called in what leaves; its own name, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonym: Option<String>,
    /// When it ends; never, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Timestamp>,
}

fn only_pass() -> Vec<String> {
    vec!["PASS".into()]
}

/// Keys about the record itself: none that names another place of the genome.
fn usual_information() -> Vec<String> {
    let keys = ["DP", "AC", "AF", "AN", "END", "MQ", "QD", "FS", "SOR", "SB", "SVLEN", "SVTYPE"];
    keys.map(String::from).into()
}

/// A right with its files read: what the filter keeps to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Permit {
    /// The right's identifier.
    pub right: String,
    /// The user.
    pub user: SiteId,
    /// What for.
    pub purpose: String,
    /// Where; `None` is the whole genome.
    #[serde(serialize_with = "as_list")]
    pub extent: Option<Regions>,
    /// Most records.
    pub max_records: Option<u64>,
    /// Names in FILTER that are permitted.
    pub filter: Vec<String>,
    /// Least QUAL.
    pub min_quality: Option<f32>,
    /// Least GQ.
    pub min_genotype_quality: Option<u32>,
    /// INFO keys that leave.
    pub information: Vec<String>,
    /// Name of the sample in what leaves.
    pub pseudonym: Option<String>,
    /// When it ends.
    pub expiry: Option<Timestamp>,
}

fn as_list<S: serde::Serializer>(extent: &Option<Regions>, to: S) -> Result<S::Ok, S::Error> {
    extent.as_ref().map(|regions| regions.iter().collect::<Vec<_>>()).serialize(to)
}

impl Right {
    /// A right to the first `max_records` records, whatever they are: for benchmarks.
    pub fn everything(max_records: Option<u64>) -> Self {
        Self {
            id: "everything".into(),
            user: "anybody".parse().expect("a valid site name"),
            purpose: "benchmark".into(),
            bed: None,
            regions: Vec::new(),
            genes: Vec::new(),
            gene_table: None,
            everywhere: true,
            max_records,
            filter: vec!["*".into()],
            min_quality: None,
            min_genotype_quality: None,
            information: usual_information(),
            pseudonym: None,
            expiry: None,
        }
    }

    /// Makes relative paths relative to `folder`, where the file is that says them.
    pub fn relative_to(&mut self, folder: &Path) {
        let paths = self.bed.iter_mut().chain(&mut self.gene_table);
        paths.for_each(|path| *path = folder.join(&*path));
    }

    /// Checks the right and reads the files it names.
    pub fn resolve(&self) -> Result<Permit, Error> {
        self.check()?;
        let mut regions = Vec::new();
        for text in &self.regions {
            let region = parse_region(text);
            let refuse = || Error::Region { right: self.id.clone(), region: text.clone() };
            regions.push(region.ok_or_else(refuse)?);
        }
        if let Some(path) = &self.bed {
            let found = bed::read(self.open(path)?);
            let found = found.map_err(|source| Error::Bed {
                right: self.id.clone(),
                path: path.clone(),
                source,
            })?;
            regions.extend(list(&found));
        }
        regions.extend(list(&self.gene_regions()?));
        Ok(Permit {
            right: self.id.clone(),
            user: self.user.clone(),
            purpose: self.purpose.clone(),
            extent: (!self.everywhere).then(|| regions.into_iter().collect()),
            max_records: self.max_records,
            filter: self.filter.clone(),
            min_quality: self.min_quality,
            min_genotype_quality: self.min_genotype_quality,
            information: self.information.clone(),
            pseudonym: self.pseudonym.clone(),
            expiry: self.expiry,
        })
    }

    fn check(&self) -> Result<(), Error> {
        let refuse = |what| Err(Error::Right { right: printable(&self.id), what });
        let plain = |text: &str| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !text.is_empty() && text.len() <= 64 && text.bytes().all(good)
        };
        let narrowed = self.bed.is_some() || !self.regions.is_empty() || !self.genes.is_empty();
        if !plain(&self.id) {
            refuse("the id is not 1 to 64 of the letters a-z, A-Z, 0-9, '-', '_' and '.'")
        } else if self.everywhere == narrowed {
            refuse("give either 'everywhere = true' or at least one of bed, regions and genes")
        } else if !self.genes.is_empty() && self.gene_table.is_none() {
            refuse("genes need a gene-table")
        } else if self.min_quality.is_some_and(|quality| !quality.is_finite()) {
            refuse("min-quality is not a number")
        } else if self.pseudonym.as_ref().is_some_and(|name| !plain(name)) {
            refuse("the pseudonym is not 1 to 64 of the letters a-z, A-Z, 0-9, '-', '_' and '.'")
        } else if self.filter.is_empty() {
            refuse("an empty filter permits no record; leave it out for PASS")
        } else {
            Ok(())
        }
    }

    fn gene_regions(&self) -> Result<Regions, Error> {
        let (Some(path), false) = (&self.gene_table, self.genes.is_empty()) else {
            return Ok(Regions::default());
        };
        let wrap = |source| Error::Genes { right: self.id.clone(), source };
        let layout = Layout::of_name(&path.to_string_lossy());
        let table = GeneTable::read(self.open(path)?, layout).map_err(wrap)?;
        table.resolve(self.genes.iter().map(String::as_str)).map_err(wrap)
    }

    fn open(&self, path: &Path) -> Result<File, Error> {
        let right = self.id.clone();
        File::open(path).map_err(|source| Error::Open { right, path: path.into(), source })
    }
}

fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn list(regions: &Regions) -> Vec<Region> {
    let all = regions.iter().flat_map(|(contig, intervals)| {
        intervals.iter().map(|&(start, end)| Region { contig: contig.into(), start, end })
    });
    all.collect()
}

/// `contig:first-last`, counted from 1, or `contig`. Contig names may hold colons.
fn parse_region(text: &str) -> Option<Region> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return None;
    }
    let Some((contig, range)) = text.rsplit_once(':') else {
        return Some(Region { contig: text.into(), start: 0, end: u32::MAX });
    };
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.replace(',', "").parse::<u32>().ok();
    let (start, end) = (number(first)?.checked_sub(1)?, number(last)?);
    (!contig.is_empty() && start < end).then(|| Region { contig: contig.into(), start, end })
}

impl Permit {
    /// BLAKE3 of everything the permit says, as `blake3:` and hexadecimal digits: it differs
    /// whenever another set of records could leave.
    pub fn digest(&self) -> String {
        let canonical = serde_json::to_vec(self).expect("a permit is plain data");
        format!("blake3:{}", blake3::hash(&canonical).to_hex())
    }

    /// Whether `user` may use it at this time since 1970.
    ///
    /// Errors: [`Error::Expired`], [`Error::OtherUser`].
    pub fn check(&self, user: &SiteId, now: Duration) -> Result<(), Error> {
        if *user != self.user {
            return Err(Error::OtherUser { right: self.right.clone(), user: user.clone() });
        }
        match self.expiry {
            Some(at) if now >= at.since_epoch() => {
                Err(Error::Expired { right: self.right.clone(), at })
            }
            _ => Ok(()),
        }
    }

    /// Whether every base of `[start, end)` is permitted.
    pub fn covers(&self, contig: &str, start: u32, end: u32) -> bool {
        self.extent.as_ref().is_none_or(|regions| regions.contains(contig, start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(text: &str) -> Result<Right, toml::de::Error> {
        toml::from_str(&format!("id='r1'\nuser='hospital'\npurpose='care'\n{text}"))
    }

    #[test]
    fn nothing_is_permitted_by_default() {
        assert!(matches!(right("").unwrap().resolve(), Err(Error::Right { .. })));
        assert!(right("regions=['chr1:1-10']\nunknown=1").is_err());
        let permit =
            right("regions=['chr1:1-10', 'HLA:01:5-6', 'chr2']").unwrap().resolve().unwrap();
        assert_eq!(permit.filter, ["PASS"]);
        assert!(permit.covers("chr1", 0, 10) && !permit.covers("chr1", 0, 11));
        assert!(permit.covers("HLA:01", 4, 6) && permit.covers("chr2", 77, 99));
        assert!(!permit.covers("chr3", 0, 1) && !permit.covers("", 0, 1));
    }

    #[test]
    fn wrong_rights_are_refused() {
        for text in [
            "everywhere=true\nregions=['chr1']",
            "genes=['A']",
            "regions=['chr1:0-5']",
            "regions=['chr1:6-5']",
            "regions=['chr1:a-b']",
            "regions=['']",
            "regions=['chr1']\nfilter=[]",
            "regions=['chr1']\nmin-quality=nan",
            "regions=['chr1']\npseudonym='a\\tb'",
            "bed='/nonexistent.bed'",
        ] {
            let text = text.replace("'a\\tb'", "\"a\\tb\"");
            assert!(right(&text).unwrap().resolve().is_err(), "{text}");
        }
        assert!(right("everywhere=true\nexpiry='soon'").is_err());
    }

    #[test]
    fn it_ends_and_belongs_to_one_user() {
        let permit =
            right("everywhere=true\nexpiry=2027-01-01T00:00:00Z").unwrap().resolve().unwrap();
        let user: SiteId = "hospital".parse().unwrap();
        let end = permit.expiry.unwrap().since_epoch();
        assert!(permit.check(&user, end - Duration::from_secs(1)).is_ok());
        assert!(matches!(permit.check(&user, end), Err(Error::Expired { .. })));
        let other = permit.check(&"clinic".parse().unwrap(), Duration::ZERO);
        assert!(matches!(other, Err(Error::OtherUser { .. })));
    }

    #[test]
    fn the_digest_follows_what_is_permitted() {
        let digest = |text: &str| right(text).unwrap().resolve().unwrap().digest();
        let base = digest("regions=['chr1:1-10']");
        assert_eq!(base, digest("regions=['chr1:1-4', 'chr1:5-10']"));
        for other in ["chr1:1-11", "chr2:1-10"] {
            assert_ne!(base, digest(&format!("regions=['{other}']")));
        }
        assert_ne!(base, digest("regions=['chr1:1-10']\nmax-records=5"));
        assert_ne!(base, digest("everywhere=true"));
    }

    #[test]
    fn files_are_found_beside_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.bed"), "chr1\t10\t20\n").unwrap();
        std::fs::write(folder.path().join("g.tsv"), "ABC\tchr2\t5\t9\n").unwrap();
        let mut right = right("bed='a.bed'\ngenes=['ABC']\ngene-table='g.tsv'").unwrap();
        right.relative_to(folder.path());
        let permit = right.resolve().unwrap();
        assert!(permit.covers("chr1", 10, 20) && permit.covers("chr2", 5, 9));
        right.genes = vec!["ABD".into()];
        assert!(matches!(right.resolve(), Err(Error::Genes { .. })));
        let text = toml::to_string(&right).unwrap();
        assert_eq!(toml::from_str::<Right>(&text).unwrap(), right);
    }
}
