"""The server versions to emulate, which take the driver down its different paths."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """A server generation."""

    name: str
    version: tuple[int, int, int, int, int]
    tns_version: int
    field_version: int  # version of TTC's message fields
    modern: bool  # fast authentication, and an end-of-response flag in each answer
    max_string: int = 4000  # bytes of a VARCHAR2: MAX_STRING_SIZE=STANDARD

    @property
    def release(self) -> int:
        """The major version: 19, 23."""
        return self.version[0]


# Too old for the service; not among the profiles of its tests.
PROFILE_18C = Profile("18c", (18, 3, 0, 0, 0), tns_version=318, field_version=11, modern=False)
PROFILE_19C = Profile("19c", (19, 24, 0, 0, 0), tns_version=318, field_version=12, modern=False)
PROFILE_23AI = Profile("23ai", (23, 9, 0, 25, 7), tns_version=319, field_version=24, modern=True)
PROFILES = {profile.name: profile for profile in (PROFILE_19C, PROFILE_23AI)}
