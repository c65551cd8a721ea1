"""Python clients of ETSI GS QKD 014 against three key managers. Arguments: certificates, 3 ports."""

import sys

from etsi_qkd_014_client import QKD014Client
from qkdsec.client import ETSI014Client
from qkdsec.client.errors import KMEHTTPError
from qkdsec.doctor import run_all

certificates, *ports = sys.argv[1:]
authority = f"{certificates}/authority.pem"
NOT_FOUND = "one or more keys specified are not found on KME"


def pair(sae):
    return f"{certificates}/{sae}.pem", f"{certificates}/{sae}.key"


def qkdsec(kme, sae):
    url = f"https://127.0.0.1:{ports[kme]}"
    return ETSI014Client(url, client_cert=pair(sae), verify=authority)


def lip6(kme, sae):
    return QKD014Client(f"localhost:{ports[kme]}", *pair(sae), authority)


def refused(status, message, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except KMEHTTPError as error:
        assert (error.status_code, error.message) == (status, message), error
    else:
        raise AssertionError(f"accepted: {arguments} {options}")


def same(a, b):
    assert [(key.key_id, key.key) for key in a] == [(key.key_id, key.key) for key in b]


def qkdsec_client():
    master, slave = qkdsec(0, "sae-a1"), qkdsec(1, "sae-b1")
    status = master.status("sae-b1")
    assert (status.source_kme_id, status.target_kme_id) == ("kme-a", "kme-b"), status
    assert (status.master_sae_id, status.slave_sae_id) == ("sae-a1", "sae-b1"), status
    assert status.stored_key_count > 0 and status.key_size == 256, status
    for method in ("GET", "POST"):
        keys = master.get_enc_keys("sae-b1", number=3, size=1024, method=method)
        assert [key.size_bits for key in keys] == [1024] * 3
        ids = [key.key_id for key in keys]
        same(keys, slave.get_dec_keys("sae-a1", key_ids=ids))
        refused(400, NOT_FOUND, slave.get_dec_keys, "sae-a1", key_ids=ids)
    refused(400, "size shall be a multiple of 8", master.get_enc_keys, "sae-b1", size=257)
    refused(400, "number shall be from 1 to 128", master.get_enc_keys, "sae-b1", number=10**6)
    refused(
        400, "not all extension_mandatory parameters are supported",
        master.get_enc_keys, "sae-b1", extension_mandatory=[{"route": "direct"}],
    )
    refused(401, "", qkdsec(0, "sae-stranger").get_enc_keys, "sae-b1")
    ids = [master.get_enc_keys("sae-b1")[0].key_id]
    refused(401, "", qkdsec(1, "sae-b2").get_dec_keys, "sae-a1", key_ids=ids)
    assert len(slave.get_dec_keys("sae-a1", key_ids=ids)) == 1


def multicast():
    """One key for three slaves at two other key managers."""
    slaves = [(1, "sae-b1"), (1, "sae-b2"), (2, "sae-c1")]
    keys = qkdsec(0, "sae-a1").get_enc_keys(
        "sae-b1", number=2, additional_slave_sae_ids=["sae-b2", "sae-c1"]
    )
    ids = [key.key_id for key in keys]
    for kme, sae in slaves:
        same(keys, qkdsec(kme, sae).get_dec_keys("sae-a1", key_ids=ids))
    for kme, sae in slaves:
        refused(400, NOT_FOUND, qkdsec(kme, sae).get_dec_keys, "sae-a1", key_ids=ids)


def doctor():
    """The doctor wants 404 for unknown keys where the standard has 400: a warning, and the only one."""
    report = run_all(qkdsec(0, "sae-a1"), "sae-a1")
    verdicts = {result.name: result.status.value for result in report.results}
    assert len(verdicts) == 10, verdicts
    assert verdicts.pop("error_contract_404") == "warn", report.to_dict()
    assert set(verdicts.values()) == {"pass"}, report.to_dict()


def lip6_client():
    master, slave = lip6(0, "sae-a1"), lip6(1, "sae-b1")
    code, status = master.get_status("sae-b1")
    assert code == 200 and status.max_key_per_request == 128, status
    for arguments in ((), (2, 512)):
        code, container = master.get_key("sae-b1", *arguments)
        assert code == 200 and len(container.keys) == (arguments or (1,))[0]
        ids = [key.key_id for key in container.keys]
        code, fetched = slave.get_key_with_key_IDs("sae-a1", ids)
        assert code == 200
        same(container.keys, fetched.keys)
        code, error = slave.get_key_with_key_IDs("sae-a1", ids)
        assert (code, error.message) == (400, NOT_FOUND), error
    code, error = master.get_key("sae-b1", size=7)
    assert (code, error.message) == (400, "size shall be a multiple of 8"), error


for check in (qkdsec_client, multicast, doctor, lip6_client):
    check()
    print(f"{check.__name__}: as expected")
