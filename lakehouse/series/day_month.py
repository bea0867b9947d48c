"""A check for a fault of dates: day and month exchanged wherever the exchanged date exists.

A stamp such as 02/01/2015 that is read month first lands on 1 February. Days after the 12th cannot be exchanged and stay
right, so the series keeps its length, its hours and its range, and the fault hides well. It shows in two places: where one day
passes into the next (the seams), and in how well a day resembles the days of the same weekday around it (the profile).
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

DECISIVE_Z = 4.0  # one-sided sign test: 3 in 100,000 for a series in which the order of days means nothing
CONTRADICTING_Z = 2.0
FEWEST_COMPARISONS = 20
PROFILE_REACH_DAYS = 21


@dataclass(frozen=True)
class DayMonthVerdict:
    """What the check says of one series in one calendar year.

    Args:
        series_id: the series.
        quantity: its quantity.
        year: local calendar year.
        verdict: swapped, right, undecided or too short to tell.
        is_swapped: whether day and month are exchanged.
        score: share of comparisons that favour the exchanged dates less the share that favours the dates as stamped, -1 to 1.
        evidence: one sentence with the counts.
    """

    series_id: str
    quantity: str
    year: int
    verdict: str
    is_swapped: bool
    score: float
    evidence: str


def day_month_swaps(connection: duckdb.DuckDBPyConnection, series: str, *, time_zone: str | None = None) -> duckdb.DuckDBPyRelation:
    """Tells for each series and year whether day and month were exchanged in its stamps.

    Every day that could be the other of a pair (day of month 12 or less, and not equal to the month) is compared twice, once
    under the date as stamped and once under the exchanged one:

    - seam: the jump from the last hour of a day to the first hour of the next;
    - profile: the distance, hour by hour, from the mean of the days of the same weekday within three weeks that cannot have been
      exchanged.

    Each comparison is a vote; ties do not vote. Under the hypothesis that dates make no difference the votes are fair coins, so
    `votes / sqrt(number)` is a standard normal score (sign test). Swapped means a score of at least 4 from one of the
    two, and none that contradicts it. The seams decide for series that change from hour to hour (load, wind, price), the
    profile for those that are alike at every midnight (sun).

    Args:
        connection: where `series` lives.
        series: name of a relation with `series_id, quantity, interval_start, value`.
        time_zone: IANA zone of the clock whose dates may be exchanged, where `interval_start` is an instant; None where
            `interval_start` already is that local clock (TIMESTAMP without zone).

    Returns:
        One row per series, quantity and year: the columns of `DayMonthVerdict`. Years with fewer than 20 comparisons are
        `too short to tell`.
    """
    local = "interval_start" if time_zone is None else "timezone($zone, interval_start)"
    query = f"""
    WITH hourly AS (
        SELECT series_id, quantity, CAST({local} AS DATE) AS day, hour({local}) AS hour, avg(value) AS value
        FROM {series} WHERE value IS NOT NULL AND isfinite(value) GROUP BY ALL
    ), daily AS (
        SELECT series_id, quantity, day,
               arg_min(value, hour) AS first_value, arg_max(value, hour) AS last_value,
               day(day) <= 12 AND day(day) <> month(day) AS is_exchangeable,
               CASE WHEN day(day) <= 12 THEN make_date(year(day), day(day), month(day)) ELSE day END AS exchanged
        FROM hourly GROUP BY series_id, quantity, day HAVING count(*) >= 20
    ), seams AS (
        SELECT b.series_id, b.quantity, year(b.day) AS year, 'seam' AS kind,
               abs(b.first_value - a.last_value) AS as_stamped, abs(y.first_value - x.last_value) AS as_exchanged
        FROM daily a
        JOIN daily b ON (a.series_id, a.quantity, a.day + 1) = (b.series_id, b.quantity, b.day)
        JOIN daily x ON (x.series_id, x.quantity, x.day) = (a.series_id, a.quantity, a.exchanged)
        JOIN daily y ON (y.series_id, y.quantity, y.day) = (b.series_id, b.quantity, b.exchanged)
        WHERE a.is_exchangeable OR b.is_exchangeable
    ), reference AS (
        SELECT d.series_id, d.quantity, d.day, d.exchanged, h.hour, avg(h.value) AS value
        FROM daily d
        JOIN daily r ON (r.series_id, r.quantity) = (d.series_id, d.quantity) AND dayofweek(r.day) = dayofweek(d.day)
             AND r.day BETWEEN d.day - {PROFILE_REACH_DAYS} AND d.day + {PROFILE_REACH_DAYS} AND NOT r.is_exchangeable
        JOIN hourly h ON (h.series_id, h.quantity, h.day) = (r.series_id, r.quantity, r.day)
        WHERE d.is_exchangeable GROUP BY ALL
    ), profiles AS (
        SELECT r.series_id, r.quantity, year(r.day) AS year, 'profile' AS kind,
               avg(abs(s.value - r.value)) AS as_stamped, avg(abs(x.value - r.value)) AS as_exchanged
        FROM reference r
        JOIN hourly s ON (s.series_id, s.quantity, s.day, s.hour) = (r.series_id, r.quantity, r.day, r.hour)
        JOIN hourly x ON (x.series_id, x.quantity, x.day, x.hour) = (r.series_id, r.quantity, r.exchanged, r.hour)
        GROUP BY r.series_id, r.quantity, r.day
    ), votes AS (
        SELECT *, CASE WHEN abs(as_stamped - as_exchanged) <= 1e-9 * (as_stamped + as_exchanged) THEN 0
                       WHEN as_exchanged < as_stamped THEN 1 ELSE -1 END AS vote
        FROM (FROM seams UNION ALL FROM profiles)
    ), counted AS (
        SELECT series_id, quantity, year,
               count(*) FILTER (kind = 'seam') AS seams, count(*) FILTER (kind = 'profile') AS profiles,
               coalesce(sum(vote) FILTER (kind = 'seam'), 0) AS seam_votes, coalesce(sum(vote) FILTER (kind = 'profile'),
                   0) AS profile_votes,
               count(*) FILTER (kind = 'seam' AND vote <> 0) AS seam_voters, count(*) FILTER (kind = 'profile'
                   AND vote <> 0) AS profile_voters,
               sum(vote) AS all_votes
        FROM votes GROUP BY ALL
    ), years AS (
        SELECT DISTINCT series_id, quantity, year(day) AS year FROM hourly
    ), scored AS (
        SELECT series_id, quantity, year, coalesce(seams, 0) AS seams, coalesce(profiles, 0) AS profiles,
               CASE WHEN seam_voters >= {FEWEST_COMPARISONS} THEN seam_votes / sqrt(seam_voters) ELSE 0 END AS seam_z,
               CASE WHEN profile_voters >= {FEWEST_COMPARISONS} THEN profile_votes / sqrt(profile_voters) ELSE 0 END AS profile_z,
               (seam_voters + seam_votes) // 2 AS seams_exchanged, seam_voters,
               (profile_voters + profile_votes) // 2 AS profiles_exchanged, profile_voters,
               coalesce(all_votes / nullif(seam_voters + profile_voters, 0), 0.0) AS score
        FROM years LEFT JOIN counted USING (series_id, quantity, year)
    ), judged AS (
        SELECT *, CASE
            WHEN greatest(seams, profiles) < {FEWEST_COMPARISONS} THEN 'too short to tell'
            WHEN greatest(seam_z, profile_z) >= {DECISIVE_Z} AND least(seam_z, profile_z) > -{CONTRADICTING_Z} THEN 'swapped'
            WHEN least(seam_z, profile_z) <= -{DECISIVE_Z} AND greatest(seam_z, profile_z) < {CONTRADICTING_Z} THEN 'right'
            ELSE 'undecided' END AS verdict
        FROM scored
    )
    SELECT series_id, quantity, CAST(year AS INTEGER) AS year, verdict, verdict = 'swapped' AS is_swapped, CAST(score AS DOUBLE) AS score,
           CASE WHEN verdict = 'too short to tell'
                THEN format('{{}}: too short to tell: {{}} midnights and {{}} days can be compared under both dates, '
                            || '{FEWEST_COMPARISONS} are needed.',
                            year, seams, profiles)
                WHEN seam_voters + profile_voters = 0 THEN format('{{}}: undecided: every day is like every other.', year)
                ELSE format('{{}}: {{}} of {{}} midnights join better with day and month exchanged (z {{:.1f}}), '
                            || 'and {{}} of {{}} days resemble '
                            || 'their weekday better (z {{:.1f}}): {{}}.', year, seams_exchanged, seam_voters, CAST(seam_z AS DOUBLE),
                            profiles_exchanged, profile_voters, CAST(profile_z AS DOUBLE),
                            CASE verdict WHEN 'swapped' THEN 'day and month look swapped' WHEN 'right' THEN 'the dates look right'
                                 ELSE 'undecided' END)
           END AS evidence
    FROM judged ORDER BY series_id, quantity, year
    """
    answer = connection.sql(query, params={"zone": time_zone} if time_zone else None).to_arrow_table()
    return connection.from_arrow(answer)


def verdicts(found: duckdb.DuckDBPyRelation) -> list[DayMonthVerdict]:
    """The rows of `day_month_swaps` as Python objects."""
    return [DayMonthVerdict(*row) for row in found.fetchall()]
