-- Credits by day, for the forecast; credits without a day under null.
SELECT
    charged_on,
    sum(credits) AS credits
FROM asked
WHERE basis <> 'unknown'
GROUP BY charged_on
ORDER BY charged_on
