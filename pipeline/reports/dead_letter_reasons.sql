-- The IDs that did not come, by reason and kind.
SELECT
    reason,
    kind,
    count(*) AS runs,
    max(failed_at) AS last_failed_at
FROM dead_letters
GROUP BY reason, kind
ORDER BY runs DESC, reason, kind
