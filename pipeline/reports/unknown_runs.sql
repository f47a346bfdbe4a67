-- Runs whose credits nothing tells, by why and by the dimensions asked for.
SELECT
    unknown_why AS why,
    COLUMNS('^by_(.+)$') AS '\1',
    count(*) AS runs,
    min(charged_on) AS first_day,
    max(charged_on) AS last_day
FROM asked
WHERE basis = 'unknown'
GROUP BY ALL
ORDER BY why, runs DESC, COLUMNS('^by_.+$') NULLS LAST
