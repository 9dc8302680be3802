from __future__ import annotations

import pytest

from frontend.domain.owners import LEAST_PRICE, address_name, portion, price


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "address:192.0.2.1"),
        ("::ffff:192.0.2.1", "address:192.0.2.1"),
        ("2001:db8:1:2::3", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:3::3", "address:2001:db8:1:3::/64"),
        ("fe80::1%eth0", "address:fe80::/64"),
        ("::1", "address:::1"),
        ("", "address:"),
        ("unknown", "address:unknown"),
    ],
)
def test_an_address_has_an_owner(address: str, name: str) -> None:
    assert address_name(address) == name


def test_an_edit_s_price_is_its_steps_times_its_pixels() -> None:
    assert price(10, 1024**2) == 1
    assert price(20, 2 * 1024**2) == 4
    assert price(1, 256**2) == LEAST_PRICE


@pytest.mark.parametrize(("total", "of_one"), [(128, 64), (3, 2), (1, 1)])
def test_one_owner_may_have_a_fraction_and_at_least_one(total: int, of_one: int) -> None:
    assert portion(total, 0.5) == of_one
